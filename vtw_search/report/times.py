"""The times of a profile for a terminal: percentiles over single calls, one line per regime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from profilers.statistics import Summary
from vtw_search.profiling.rows import RegimeRow

# Of fewer calls, the 99th percentile is hardly more than the slowest one.
_ENOUGH_FOR_P99: Final = 100
# Title of a column, phase, side: 0 for keep-all, 1 for the policy. The tower does the same work on both.
_COLUMNS: Final = (
    ("vision", "vision", 0),
    ("prefill, keep-all", "prefill", 0),
    ("prefill, policy", "prefill", 1),
    ("decode step, keep-all", "decode", 0),
    ("decode step, policy", "decode", 1),
)


def times_table(rows: Sequence[RegimeRow]) -> Table:
    """Return p50, p90 and p99 of every phase of the timed rows, in milliseconds, readable in 150 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    table.title, table.caption = Text("milliseconds: p50 / p90 / p99", style="bold"), Text(_caption(rows))
    for name in ("batch", "visual", "text", "output", *(title for title, _, _ in _COLUMNS)):
        table.add_column(name, justify="right")
    for row in rows:
        if row.phases is not None:
            found = row.phases.summaries()
            times = (_cell(found[phase][side]) if phase in found else "" for _, phase, side in _COLUMNS)
            table.add_row(*map(str, row.regime.axes), *times)
    return table


def _cell(times: Summary) -> str:
    return " / ".join(map(_milliseconds, (times.p50_ms, times.p90_ms, times.p99_ms)))


def _milliseconds(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _caption(rows: Sequence[RegimeRow]) -> str:
    timed = [row.phases for row in rows if row.phases is not None]
    calls = [len(side.values_ms) for phases in timed for sides in phases.summaries().values() for side in sides]
    decoded = any(phases.decode is not None for phases in timed)
    lines = ["the time of a decode step is the mean over the steps of an answer"] if decoded else []
    if min(calls) < _ENOUGH_FOR_P99:
        counts = f"{min(calls)} calls" if min(calls) == max(calls) else f"{min(calls)} to {max(calls)} calls"
        lines.append(
            f"{counts} each: below {_ENOUGH_FOR_P99}, p99 says no more than the slowest call; "
            "profile.min_seconds and profile.repeats give more"
        )
    return "\n".join(lines)
