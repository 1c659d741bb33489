"""Table and picture of a profile: one line per regime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from profilers.regimes import break_even_visual_tokens
from profilers.statistics import Interval
from vtw_search.profiling.rows import RegimeRow
from vtw_search.report.drawing import BLUE, GREY, INK, SMALL, VERMILLION, blank_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SPEEDUPS = ("first token", "per token", "whole answer", "ceiling", "gains")
_CAPTION = (
    "macs, cache: the policy's over keep-all's; macs of the prefill, bytes of the cache at the end of an answer",
    "first token, per token, whole answer: keep-all's time over the policy's [95 % interval], above 1 is faster",
    "ceiling: if all that the policy touches took no time; gains: how many output tokens an answer has that gains",
)
_COLORS = {"pays off": BLUE, "does not": VERMILLION, "cannot tell": GREY}


def regime_table(rows: Sequence[RegimeRow], title: str) -> Table:
    """Return the rows of a profile for a terminal, readable in 150 columns; without times, what was counted alone."""
    timed = any(row.phases is not None for row in rows)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    table.title, table.caption = Text(title, style="bold"), Text("\n".join(_CAPTION if timed else _CAPTION[:1]))
    for name in ("batch", "visual", "text", "output", "macs", "cache", *(_SPEEDUPS if timed else ())):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in rows:
        table.add_row(*_counts(row), *(_speedups(row) if timed else ()), row.verdict or row.status)
    return table


def _counts(row: RegimeRow) -> list[str]:
    cache = row.candidate.cache_bytes / row.reference.cache_bytes
    return [*map(str, row.regime.axes), f"{row.macs_ratio:.3f}", f"{cache:.3f}"]


def _speedups(row: RegimeRow) -> list[str]:
    intervals = (row.first_token_speedup, row.decode_speedup, row.speedup)
    ceiling = "" if row.ceiling is None else f"{row.ceiling:.2f}"
    return [*map(_interval, intervals), ceiling, _gaining_outputs(row)]


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _gaining_outputs(row: RegimeRow) -> str:
    found = row.gaining_outputs
    if row.phases is None:
        return ""
    if found is None:
        return "none"
    return f"from {found.above:.0f}" if found.below is None else f"up to {found.below:.0f}"


def sentences(rows: Sequence[RegimeRow]) -> list[str]:
    """Return what the profile says in words: verdicts with their reasons, where the gain begins, what is left out."""
    told = [_sentence(row) for row in rows if row.verdict is not None]
    failed = [f"{row.regime.label()}: {row.status}" for row in rows if row.failed]
    return told + failed + _begins(rows) + _left_out(rows)


def _sentence(row: RegimeRow) -> str:
    assert row.speedup is not None, "a row with a verdict has been timed"
    words = {
        "pays off": f"pays off: {row.speedup.value:.2f} times as fast",
        "does not": f"does not pay off: {row.speedup.value:.2f} times as fast",
        "cannot tell": "cannot tell",
    }[row.verdict or "cannot tell"]
    interval = f"95 % interval {row.speedup.low:.2f} to {row.speedup.high:.2f}, at most {row.ceiling:.2f} possible"
    agreed = "every block says so, although " if row.verdict != "cannot tell" else ""
    reasons = f"; {agreed}{'; '.join(row.problems)}" if row.problems else ""
    return f"{row.regime.label()}: {words} ({interval}{reasons})"


def _begins(rows: Sequence[RegimeRow]) -> list[str]:
    groups: dict[tuple[int, int, int], dict[int, float]] = {}
    for row in rows:
        if row.speedup is not None:
            key = (row.regime.batch, row.regime.prompt_tokens, row.regime.output_tokens)
            groups.setdefault(key, {})[row.regime.visual_tokens] = row.speedup.value
    told = []
    for (batch, prompt, outputs), speedups in groups.items():
        if len(speedups) > 1:
            where = f"batch {batch}, {prompt} text and {outputs} output tokens"
            told.append(f"{where}: visual tokens gain {_where_it_gains(speedups)}")
    return told


def _where_it_gains(speedups: Mapping[int, float]) -> str:
    start = break_even_visual_tokens(speedups)
    if start is not None:
        return f"from about {start:.0f} on"
    gaining = [str(count) for count, speedup in sorted(speedups.items()) if speedup > 1]
    return f"at {', '.join(gaining)}, but not at {max(speedups)}" if gaining else "at none of the measured counts"


def _left_out(rows: Sequence[RegimeRow]) -> list[str]:
    reasons = dict.fromkeys(reason for row in rows for reason in row.left_out)
    if not reasons:
        return []
    return [f"macs, times, ceilings and verdicts leave out the vision part ({'; '.join(reasons)})"]


def draw_regimes(rows: Sequence[RegimeRow], title: str) -> Figure:
    """Return one bar per regime: the speed-up with its interval, the ceiling, and the line of no gain.

    Without times, the bars are the reference's macs over the candidate's.
    """
    timed = [row for row in rows if row.speedup is not None]
    shown = timed or list(rows)
    notes = []
    if timed:
        notes.append("Bars: reference over candidate with 95 % intervals; diamonds: Amdahl ceiling; dashed: no gain.")
    if any(row.left_out for row in rows):
        notes.append("The vision part is left out.")
    figure = blank_figure(0.5 + 0.42 * len(shown), "times as fast" if timed else "macs of the reference over macs",
                          header=[title], notes=notes)  # fmt: skip
    axes = figure.add_subplot()
    style_axes(axes)
    for place, row in enumerate(shown):
        value = 1 / row.macs_ratio if row.speedup is None else row.speedup.value
        axes.barh([place], [value], color=_COLORS.get(row.verdict or "", BLUE), height=0.6)
        if row.speedup is not None and row.ceiling is not None:
            axes.plot([row.speedup.low, row.speedup.high], [place, place], color=INK, linewidth=2)
            axes.plot([row.ceiling], [place], "D", color=INK, markersize=5, markerfacecolor="white")
    axes.axvline(1.0, color=INK, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(shown)), [row.regime.label() for row in shown], fontsize=SMALL)
    axes.invert_yaxis()
    return figure


def write_picture(rows: Sequence[RegimeRow], title: str, path: Path) -> None:
    """Write the picture of a profile as PNG."""
    draw_regimes(rows, title).savefig(path)
