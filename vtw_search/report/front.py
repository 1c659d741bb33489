"""The front: what accuracy a budget of multiply-adds reaches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtw_search.report import drawing, kinds, quantities
from vtw_search.results import Row, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vtw_search.report.labels import PointLabel

_X_LABEL = "multiply-adds of one prefill, % of keep-all"
# At the legend's size: of a line, of what stands before a name.
_LEGEND_CHARACTERS, _KEY_CHARACTERS = 126, 8
_LEGEND_LINE_INCHES = 0.2
_Point = tuple[float, float]


def front_points(result: StudyResult) -> list[tuple[Row, float, float]]:
    """Return the rows that can be drawn, each with its multiply-adds in percent of keep-all and its accuracy."""
    return _points(result.rows)


def baseline_points(result: StudyResult) -> list[tuple[Row, float, float]]:
    """Return the same of the baselines."""
    return _points([baseline.row for baseline in result.baselines])


def _points(rows: Sequence[Row]) -> list[tuple[Row, float, float]]:
    found = ((row, quantities.macs_percent(row), quantities.accuracy(row).value) for row in rows)
    return [(row, x, y) for row, x, y in found if x is not None and y is not None]


def front_corners(result: StudyResult) -> list[_Point]:
    """Return the points of the front by rising multiply-adds; a budget between two of them reaches the left one."""
    return sorted((x, y) for row, x, y in front_points(result) if row.on_front)


def front_figure(result: StudyResult) -> Figure:
    """Draw accuracy over multiply-adds, the front as steps, and the baselines.

    Withdrawals are labelled with their K; where other policies were searched, colour and marker say which operators
    act. Rows without these numbers are named in a footnote.
    """
    named = _names(result)
    columns = _columns(named)
    height = 4.4 + _LEGEND_LINE_INCHES * math.ceil(len(named) / columns)
    header = [quantities.one_line(result.task, 80), result.verdict]
    figure = drawing.blank_figure(height, _X_LABEL, header=header, notes=_notes(result))
    axes = figure.subplots()
    drawing.style_axes(axes)
    axes.set_ylabel("accuracy", fontsize=drawing.FONT, color=drawing.INK)
    axes.margins(0.06, 0.12)
    corners, limit = front_corners(result), drawing.accuracy_limit(result)
    _draw_points(axes, result)
    _draw_baselines(axes, result)
    if corners:
        axes.plot(*zip(*corners, strict=True), color=drawing.BLUE, linewidth=1.8, drawstyle="steps-post", label="front")
    if limit is not None:
        above, right = _free_place(
            axes, [(x, y) for _, x, y in front_points(result) + baseline_points(result)], limit[0]
        )
        drawing.draw_limit(axes, *limit, above=above, right=right)
    if named:
        size = drawing.SMALL - 1
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=columns, fontsize=size, frameon=False)
    _label_points(axes, result, _steps(corners), limit)
    return figure


def _names(result: StudyResult) -> list[str]:
    """Return what the legend tells apart: nothing where K does, and there are no baselines."""
    baselines = dict.fromkeys(_baseline_name(row) for row, _, _ in baseline_points(result))
    found = [*([] if kinds.by_layer(result) else kinds.marks_of(result)), *baselines]
    return [*found, "front"] if found else []


def _columns(names: Sequence[str]) -> int:
    """Return in how many columns a legend of these names fits the figure."""
    return max(1, min(4, _LEGEND_CHARACTERS // (max(map(len, names), default=0) + _KEY_CHARACTERS)))


def _free_place(axes: Axes, points: Sequence[_Point], level: float) -> tuple[bool, bool]:
    """Return on which side of a limit (above, at the right) its text has the fewest points."""
    axes.autoscale_view()
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()

    def covered(place: tuple[bool, bool]) -> int:
        above, at_right = place
        near = (x for x, y in points if 0 <= (y - level if above else level - y) < 0.08 * (top - bottom))
        return sum((right - x if at_right else x - left) < 0.2 * (right - left) for x in near)

    return min(((True, False), (False, False), (False, True), (True, True)), key=covered)


def _draw_points(axes: Axes, result: StudyResult) -> None:
    """Draw every row, as its kind where K does not tell policies apart."""
    if kinds.by_layer(result):
        for row, x, y in front_points(result):
            drawing.draw_point(axes, row, x, y)
        return
    marks = kinds.marks_of(result)
    for row, x, y in front_points(result):
        mark = marks[kinds.kind_of(row.measurement.policy)]
        drawing.draw_point(axes, row, x, y, color=mark.color, marker=mark.marker)
    for kind, mark in marks.items():
        axes.plot([], [], mark.marker, color=mark.color, label=kind)


def _draw_baselines(axes: Axes, result: StudyResult) -> None:
    points = baseline_points(result)
    for name, shape in _BASELINES.items():
        own = [(x, y) for row, x, y in points if _baseline_name(row) == name]
        if own:
            axes.plot(
                *zip(*own, strict=True), shape, label=name, color=drawing.INK, markersize=8,
                markeredgewidth=1.8, zorder=5,
            )  # fmt: skip


_BASELINES = {"baseline: random tokens": "x", "baseline: coarser grid": "+"}


def _baseline_name(row: Row) -> str:
    random, grid = _BASELINES
    return random if any(stage.scorer is not None for stage in row.measurement.policy.stages) else grid


def _steps(corners: Sequence[_Point]) -> list[_Point]:
    turns = [point for left, right in itertools.pairwise(corners) for point in (left, (right[0], left[1]))]
    return [*turns, *corners[-1:]]


def _label_points(axes: Axes, result: StudyResult, steps: Sequence[_Point], limit: tuple[float, str] | None) -> None:
    """Write K beside every point; only what was chosen beside its own where K does not tell policies apart."""
    from vtw_search.report.labels import place_labels

    left, right = axes.get_xlim()
    lines = [steps] if limit is None else [steps, [(left, limit[0]), (right, limit[0])]]
    points, every = front_points(result), kinds.by_layer(result)
    ranked = sorted(points, key=lambda point: (not point[0].chosen, not point[0].on_front, not point[0].feasible))
    baselines = [(x, y) for _, x, y in baseline_points(result)]
    place_labels(axes, [_label(*point) for point in ranked if every or point[0].chosen], lines, baselines)


def _label(row: Row, x: float, y: float) -> PointLabel:
    from vtw_search.report.labels import PointLabel

    layer = quantities.layer_name(row)
    if row.chosen:
        policy = row.measurement.policy
        name = f"K = {layer}" if kinds.is_withdrawal(policy) else quantities.one_line(policy.label(), 70)
        text = "chosen: keep all" if policy.is_keep_all else f"chosen: {name}"
        return PointLabel(x, y, text, drawing.VERMILLION, drawing.FONT, bold=True, leftwards=True)
    return PointLabel(x, y, layer, drawing.BLUE if row.on_front else drawing.GREY, drawing.SMALL, bold=row.on_front)


def _notes(result: StudyResult) -> list[str]:
    drawn = [row for row, _, _ in front_points(result)]
    left_out = [row for row in result.rows if row.measurement.failure is None and row not in drawn]
    points = "Numbers are the layer K." if kinds.by_layer(result) else "Colours: which operators act, in their order."
    return [
        f"{points} {drawing.MARKS} Line: the front.",
        f"{quantities.samples_text(result)}.",
        *([f"Not drawn, no macs or no accuracy: {quantities.named(result, left_out)}"] if left_out else []),
        *drawing.failure_notes([result]),
    ]
