"""A study as a table for the terminal and as a frame for CSV."""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from typing import Any, get_args

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from vtw_search.records import Measurement
from vtw_search.report import kinds, quantities
from vtw_search.report.quantities import Quantity, fixed
from vtw_search.results import Row, StudyResult

_COLUMNS = ("K", "KL", "acc.", "drop", "agree", "macs", "time", "status")
_NOTE = "limits are judged on the point estimate; intervals are 95 % and only shown"
# More than a screen of policies is read in the report.
_MOST_ROWS = 40


def study_table(result: StudyResult) -> Table:
    """Return the rows of a study, readable in 100 columns.

    KL is in nats, `acc.` is the accuracy, `drop` its paired loss, `agree` the share of unchanged greedy answers, `macs`
    the multiply-adds of one prefill with their share of keep-all, and `time` its latency divided by that of keep-all.
    Numbers that break a limit are red. Where layers do not tell policies apart, they have numbers, which the caption
    explains. Of many rows, those on the front are shown and those whose macs are nearest to the chosen one's.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title = Text(f"{result.task}: {quantities.samples_text(result)}", style="bold")
    table.title_justify = "left"
    rows = _shown(result)
    names = _names(rows)
    table.caption, table.caption_justify = Text(_caption(result, rows, names)), "left"
    first = "K" if kinds.by_layer(result) else "policy"
    for name in (first, *_COLUMNS[1:]):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=name != "status")
    decimals = _kl_decimals(result)
    for row, name in zip(rows, names, strict=True):
        table.add_row(*_cells(row, name, decimals), style="bold" if row.chosen else None)
    return table


def _shown(result: StudyResult) -> list[Row]:
    """Return the rows of the table: in their own order by layer, otherwise by rising macs."""
    rows = list(result.rows)
    if kinds.by_layer(result):
        return rows
    first = [row.chosen or row.on_front or row.measurement.policy.is_keep_all for row in rows]
    wanted = [row for row, is_first in zip(rows, first, strict=True) if is_first]
    others = [row for row, is_first in zip(rows, first, strict=True) if not is_first]
    target = next((_macs(row) for row in rows if row.chosen), 0.0)
    # Rows without macs failed: they come last.
    others.sort(key=lambda row: _macs(row) if math.isinf(_macs(row)) else abs(_macs(row) - target))
    return sorted([*wanted, *others[: max(0, _MOST_ROWS - len(wanted))]], key=_macs)


def _macs(row: Row) -> float:
    return math.inf if row.measurement.macs is None else float(row.measurement.macs)


def _names(rows: Sequence[Row]) -> list[str]:
    """Return what stands for each policy: K where that tells it, otherwise a number."""
    return [
        quantities.layer_name(row) if kinds.is_withdrawal(row.measurement.policy) else f"#{place}"
        for place, row in enumerate(rows, start=1)
    ]


def _caption(result: StudyResult, rows: Sequence[Row], names: Sequence[str]) -> str:
    explained = zip(names, (row.measurement.policy.label() for row in rows), strict=True)
    left_out = len(result.rows) - len(rows)
    lines = [
        "> chosen, * on the front, no: the limits that are broken",
        *(f"{name} {label}" for name, label in explained if name.startswith("#")),
        *([f"and {left_out} more policies, in the report"] if left_out else []),
        f"{quantities.kl_name([result])}, in nats",
        f"limits: {quantities.settings_text(list(result.limits.items()))}",
        _NOTE,
        *(f"failed, {layers}: {reason}" for reason, layers in quantities.failures(result).items()),
        *(f"{layers}: {reason}" for reason, layers in quantities.without_times(result).items()),
    ]
    return "\n".join(lines)


def _kl_decimals(result: StudyResult) -> int:
    """Return enough decimals to see two figures of a number at the bound, as far as the width allows."""
    limit = quantities.bound(result, "kl") or 1.0
    return min(max(4, 1 + math.ceil(-math.log10(limit))), 5)


def _cells(row: Row, name: str, kl_decimals: int) -> list[Text]:
    texts = (
        _marked(row, name),
        _with_interval(quantities.kl(row), kl_decimals),
        fixed(quantities.accuracy(row).value),
        _with_interval(quantities.accuracy_drop(row), 3),
        fixed(quantities.finite(row.measurement.agreement)),
        _macs_text(row),
        _time_text(row),
    )
    broken = quantities.broken_columns(row)
    cells = [Text(text, style="red" if name in broken else "") for name, text in zip(_COLUMNS, texts, strict=False)]
    return [*cells, _status(row, broken)]


def _marked(row: Row, name: str) -> str:
    return f"{'>' if row.chosen else '*' if row.on_front else ''} {name}"


def _with_interval(quantity: Quantity, decimals: int) -> str:
    if quantity == (0, 0, 0):
        return "0"
    decimals = decimals if abs(quantity.value or 0) < 1 else 2
    smallest = 0.5 * 10.0**-decimals
    tiny = quantity.value is not None and 0 < quantity.value < smallest
    value = f"<{_bare(2 * smallest, decimals)}" if tiny else fixed(quantity.value, decimals)
    if quantity.interval is None:
        return value
    low, high = (_bare(end, decimals) for end in quantity.interval)
    return f"{value} [{low}, {high}]"


def _bare(value: float, decimals: int) -> str:
    """Write a number without the zero before its point: the columns have to fit 100 characters."""
    text = fixed(value, decimals)
    return text.replace("0.", ".", 1) if abs(value) < 1 and "." in text else text


def _macs_text(row: Row) -> str:
    percent = quantities.macs_percent(row)
    return quantities.humanised(row.measurement.macs) + ("" if percent is None else f" {percent:3.0f}%")


def _time_text(row: Row) -> str:
    ratio = quantities.finite(row.measurement.latency_ratio)
    # A question mark where the protocol itself doubts the times.
    return fixed(ratio, 2) + ("?" if ratio is not None and row.measurement.latency_problems else "")


def _status(row: Row, broken: list[str]) -> Text:
    if row.measurement.failure is not None:
        return Text("failed", style="red")
    if row.measurement.stopped is not None:
        return Text("raced out", style="red")
    return Text(f"no: {', '.join(broken)}", style="red") if broken else Text("feasible", style="green")


def front_frame(result: StudyResult) -> pd.DataFrame:
    """Return all rows with flat columns: how it was judged, the numbers of its measurement, and doubts about its times.

    Whole numbers are `Int64` and the others `float64`, so that a missing number is an empty cell of a CSV file.
    """
    kinds = _numeric_fields()
    taken = [*kinds, _DOUBTS]
    rows = [_judged(row) | {name: getattr(row.measurement, name) for name in taken} for row in result.rows]
    frame = pd.DataFrame(rows, columns=[*_JUDGED, *(name for name in taken if name != "layer")])
    return frame.astype(kinds)


_DOUBTS = "latency_problems"
_JUDGED = ("layer", "policy", "feasible", "on_front", "chosen", "status")


def _judged(row: Row) -> dict[str, Any]:
    values = (row.measurement.layer, row.measurement.policy.label(), row.feasible, row.on_front, row.chosen, row.status)
    return dict(zip(_JUDGED, values, strict=True))


def _numeric_fields() -> dict[str, str]:
    """Return the numeric fields of a measurement with their column types, in the order of the record."""
    types_of = {name: _members(field.annotation) for name, field in Measurement.model_fields.items()}
    numeric = {name: kinds for name, kinds in types_of.items() if kinds & {int, float}}
    return {name: "float64" if float in kinds else "Int64" for name, kinds in numeric.items()}


def _members(annotation: Any) -> set[Any]:
    return set(get_args(annotation)) if isinstance(annotation, types.UnionType) else {annotation}
