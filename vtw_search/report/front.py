"""The front: what accuracy a budget of multiply-adds reaches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtw_search.report import drawing, quantities
from vtw_search.results import Row, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vtw_search.report.labels import PointLabel

_X_LABEL = "multiply-adds of one prefill, % of keep-all"
_Point = tuple[float, float]


def front_points(result: StudyResult) -> list[tuple[Row, float, float]]:
    """Return the rows that can be drawn, each with its multiply-adds in percent of keep-all and its accuracy."""
    found = ((row, quantities.macs_percent(row), quantities.accuracy(row).value) for row in result.rows)
    return [(row, x, y) for row, x, y in found if x is not None and y is not None]


def front_corners(result: StudyResult) -> list[_Point]:
    """Return the points of the front by rising multiply-adds; a budget between two of them reaches the left one."""
    return sorted((x, y) for row, x, y in front_points(result) if row.on_front)


def front_figure(result: StudyResult) -> Figure:
    """Draw accuracy over multiply-adds, every point labelled with its K, and the front as steps.

    Rows without these numbers are named in a footnote.
    """
    figure = drawing.blank_figure(
        4.4, _X_LABEL, header=[quantities.one_line(result.task, 80), result.verdict], notes=_notes(result)
    )
    axes = figure.subplots()
    drawing.style_axes(axes)
    axes.set_ylabel("accuracy", fontsize=drawing.FONT, color=drawing.INK)
    axes.margins(0.06, 0.12)
    points, corners, limit = front_points(result), front_corners(result), drawing.accuracy_limit(result)
    for row, x, y in points:
        drawing.draw_point(axes, row, x, y)
    if corners:
        axes.plot(*zip(*corners, strict=True), color=drawing.BLUE, linewidth=1.8, drawstyle="steps-post", label="front")
    if limit is not None:
        drawing.draw_limit(axes, *limit, above=True, right=False)
    _label_points(axes, points, _steps(corners), limit)
    return figure


def _steps(corners: Sequence[_Point]) -> list[_Point]:
    turns = [point for left, right in itertools.pairwise(corners) for point in (left, (right[0], left[1]))]
    return [*turns, *corners[-1:]]


def _label_points(
    axes: Axes, points: Sequence[tuple[Row, float, float]], steps: Sequence[_Point], limit: tuple[float, str] | None
) -> None:
    from vtw_search.report.labels import place_labels

    left, right = axes.get_xlim()
    lines = [steps] if limit is None else [steps, [(left, limit[0]), (right, limit[0])]]
    ranked = sorted(points, key=lambda point: (not point[0].chosen, not point[0].on_front, not point[0].feasible))
    place_labels(axes, [_label(*point) for point in ranked], lines)


def _label(row: Row, x: float, y: float) -> PointLabel:
    from vtw_search.report.labels import PointLabel

    layer = quantities.layer_name(row)
    if row.chosen:
        text = "chosen: keep all" if layer == "all" else f"chosen: K = {layer}"
        return PointLabel(x, y, text, drawing.VERMILLION, drawing.FONT, bold=True, leftwards=True)
    return PointLabel(x, y, layer, drawing.BLUE if row.on_front else drawing.GREY, drawing.SMALL, bold=row.on_front)


def _notes(result: StudyResult) -> list[str]:
    drawn = [row for row, _, _ in front_points(result)]
    left_out = [row for row in result.rows if row.measurement.failure is None and row not in drawn]
    layers = ", ".join(str(row.measurement.layer) for row in left_out)
    return [
        f"Numbers are the layer K. {drawing.MARKS} Line: the front.",
        f"{quantities.samples_text(result)}.",
        *([f"Not drawn, no macs or no accuracy: K = {layers}"] if left_out else []),
        *drawing.failure_notes([result]),
    ]
