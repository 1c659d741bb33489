"""Accuracy and KL over the withdrawal layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vtw_search.report import drawing, kinds, quantities
from vtw_search.report.quantities import Quantity
from vtw_search.results import Row, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Below this a divergence in float32 is noise; smaller values would only stretch the axis.
_SMALLEST_FLOOR = 1e-6
# The narrowest column whose texts stay apart; four of them fill a README.
_COLUMN_INCHES = 2.25
# More points than this touch each other unless they are drawn smaller.
_POINTS_APART = 45
# As many as fit above all columns together.
_TITLE_CHARACTERS = 80
_X_LABEL = "withdrawal layer K (0-based; K = L keeps all)"


def has_curve(result: StudyResult) -> bool:
    """Whether a study has withdrawals at all, which K is about."""
    return any(kinds.is_withdrawal(row.measurement.policy) for row in result.rows[1:])


def curves_figure(results: Sequence[StudyResult]) -> Figure:
    """Draw accuracy and KL of withdrawals over K, one column per task; other policies have no place on this axis.

    Divergences at or below a floor that the axis states, zero among them, are drawn at it. A row without numbers leaves
    a gap and is named in a footnote.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError("curves need at least one result")
    results = [_withdrawals(result) for result in results]
    floor = _kl_floor(results)
    crowded = sum(len(result.rows) for result in results) > _POINTS_APART
    size = 3.5 if crowded else 5.5
    figure = drawing.blank_figure(5.2, _X_LABEL, width=_COLUMN_INCHES * len(results), notes=_notes(results, floor))
    panels = figure.subplots(2, len(results), sharex="col", sharey="row", squeeze=False)
    for (top, bottom), result in zip(panels.T, results, strict=True):
        title = quantities.one_line(result.task, max(_TITLE_CHARACTERS // len(results), 20))
        top.set_title(title, fontsize=drawing.FONT + 1, fontweight="bold", color=drawing.INK, parse_math=False)
        _accuracy_panel(top, result, size)
        _kl_panel(bottom, result, size, floor)
    # Only now: setting one end of the axis that the columns share freezes the other.
    for bottom in panels[1]:
        _decades(bottom, floor)
    panels[0, 0].set_ylabel("accuracy", fontsize=drawing.FONT, color=drawing.INK)
    words = quantities.kl_name(results).replace(", ", ",\n")
    panels[1, 0].set_ylabel(f"{words}, nats", fontsize=drawing.SMALL + 0.5, color=drawing.INK, parse_math=False)
    return figure


def _withdrawals(result: StudyResult) -> StudyResult:
    return replace(result, rows=tuple(row for row in result.rows if kinds.is_withdrawal(row.measurement.policy)))


def _notes(results: Sequence[StudyResult], floor: float) -> list[str]:
    drawn = f"Bands: 95 % intervals, only shown. A KL at or below {_decade(floor)}, such as 0, is drawn there."
    return [drawing.MARKS, drawn, *drawing.failure_notes(results)]


def _accuracy_panel(axes: Axes, result: StudyResult, size: float) -> None:
    drawing.style_axes(axes)
    _curve(axes, result, size, quantities.accuracy)
    limit = drawing.accuracy_limit(result)
    if limit is not None:
        reached = _mostly(result, lambda row: (quantities.accuracy(row).value or 0.0) >= limit[0])
        drawing.draw_limit(axes, *limit, above=not reached, right=reached)
    _mark_chosen(axes, result)
    _layer_axis(axes, result)


def _kl_panel(axes: Axes, result: StudyResult, size: float, floor: float) -> None:
    drawing.style_axes(axes)
    axes.set_yscale("log")
    _curve(axes, result, size, lambda row: _raised(quantities.kl(row), floor))
    limit = quantities.bound(result, "kl")
    if limit is not None:
        reached = _mostly(result, lambda row: (quantities.kl(row).value or 0.0) <= limit)
        drawing.draw_limit(axes, max(limit, floor), f"KL ≤ {limit:g}", above=reached or limit <= floor, right=reached)
    if kinds.is_withdrawal(result.chosen.measurement.policy):
        axes.axvline(result.chosen.measurement.layer, color=drawing.VERMILLION, linewidth=1.2, linestyle=":")


def _mostly(result: StudyResult, holds: Callable[[Row], bool]) -> bool:
    """Return whether most deep layers hold: then the right of the limit's line is free for its text, else the left."""
    last = max(row.measurement.layer for row in result.rows)
    deep = [row for row in result.rows if row.measurement.failure is None and row.measurement.layer > last / 2]
    return 2 * sum(map(holds, deep)) > len(deep)


def _kl_floor(results: Sequence[StudyResult]) -> float:
    """Return the decade below the smallest positive divergence, at least the level of noise."""
    values = [quantities.kl(row).value for result in results for row in result.rows]
    positive = [value for value in values if value is not None and value > 0]
    decade = 10.0 ** (math.floor(math.log10(min(positive))) - 1) if positive else 0.0
    return max(_SMALLEST_FLOOR, decade)


def _raised(quantity: Quantity, floor: float) -> Quantity:
    return Quantity(*(None if part is None else max(part, floor) for part in quantity))


def _decades(axes: Axes, floor: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_ylim(bottom=floor / 3)
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: ("≤ " if value < 2 * floor else "") + _decade(value)))


def _decade(value: float) -> str:
    exponent = round(math.log10(value))
    return f"{value:g}" if exponent > -4 else f"1e{exponent}"


def _curve(axes: Axes, result: StudyResult, size: float, read: Callable[[Row], Quantity]) -> None:
    rows = sorted(result.rows, key=lambda row: row.measurement.layer)
    layers = [row.measurement.layer for row in rows]
    found = [read(row) for row in rows]
    lows, highs = zip(*(quantity.interval or (math.nan, math.nan) for quantity in found), strict=True)
    axes.fill_between(layers, lows, highs, color=drawing.BLUE, alpha=0.18, linewidth=0)
    values = [math.nan if quantity.value is None else quantity.value for quantity in found]
    axes.plot(layers, values, color=drawing.BLUE, linewidth=1.6)
    for row, value in zip(rows, values, strict=True):
        drawing.draw_point(axes, row, row.measurement.layer, value, size)


def _mark_chosen(axes: Axes, result: StudyResult) -> None:
    numbers = result.chosen.measurement
    if not kinds.is_withdrawal(numbers.policy):
        return
    axes.axvline(numbers.layer, color=drawing.VERMILLION, linewidth=1.2, linestyle=":")
    text = f"keep all\n(K = {numbers.layer})" if numbers.policy.is_keep_all else f"chosen\nK = {numbers.layer}"
    right = numbers.layer < 0.7 * max(row.measurement.layer for row in result.rows)
    axes.annotate(
        text, (numbers.layer, 0.04), xycoords=axes.get_xaxis_transform(), xytext=(5 if right else -5, 0),
        textcoords="offset points", ha="left" if right else "right",
        fontsize=drawing.SMALL, fontweight="bold", color=drawing.VERMILLION,
    )  # fmt: skip


def _layer_axis(axes: Axes, result: StudyResult) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    layers = [row.measurement.layer for row in result.rows]
    axes.set_xlim(min(layers) - 0.6, max(layers) + 0.6)
