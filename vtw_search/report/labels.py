"""Labels beside points that do not cover each other: matplotlib has none. Import it late, it loads matplotlib."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.transforms import Bbox

from vtw_search.report.drawing import DOTS_PER_INCH, GREY, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

# Where a label may go: how many points from its point, and on which side (right, up).
_DISTANCES = (6.0, 14.0, 24.0, 36.0)
_SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))


@dataclass(frozen=True)
class PointLabel:
    """A text for the point (x, y) of the data; the size is in points, `leftwards` prefers the left side."""

    x: float
    y: float
    text: str
    color: str = GREY
    size: float = SMALL
    bold: bool = False
    leftwards: bool = False


def place_labels(
    axes: Axes, labels: Sequence[PointLabel], lines: Sequence[Sequence[tuple[float, float]]],
    points: Sequence[tuple[float, float]] = (),
) -> list[str]:  # fmt: skip
    """Write labels beside their points, so that none covers the point of a label, another text, a line or a point.

    Args:
        axes: with its final limits.
        labels: the most important ones first.
        lines: corners of horizontal and vertical lines, in data coordinates.
        points: other points, which have no label.

    Returns:
        The labels that found no place and are not drawn.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    taken = [_centred(axes, (label.x, label.y), radius=3.5) for label in labels]
    taken += [_centred(axes, point, radius=5.0) for point in points]
    taken += [text.get_window_extent() for text in axes.texts]
    taken += [_strip(axes, *ends) for line in lines for ends in itertools.pairwise(line)]
    return [label.text for label in labels if not _place(axes, label, taken)]


def _centred(axes: Axes, point: tuple[float, float], radius: float) -> Bbox:
    x, y = axes.transData.transform(point)
    pixels = radius * DOTS_PER_INCH / 72
    return Bbox.from_extents(x - pixels, y - pixels, x + pixels, y + pixels)


def _strip(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> Bbox:
    return Bbox.union([_centred(axes, start, radius=1.5), _centred(axes, end, radius=1.5)])


def _place(axes: Axes, label: PointLabel, taken: list[Bbox]) -> bool:
    note = _annotation(axes, label)
    size = note.get_window_extent().size
    sides = sorted(_SIDES, key=lambda side: side[0]) if label.leftwards else _SIDES
    for distance, (right, up) in itertools.product(_DISTANCES, sides):
        near = _centred(axes, (label.x, label.y), distance)
        box = _beside(near, size, right, up)
        if _inside(axes, box) and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            _move(note, right, up, distance)
            return True
    note.remove()
    return False


def _beside(near: Bbox, size: Sequence[float], right: int, up: int) -> Bbox:
    """Return the box of a text of that size that touches `near` on one side."""
    x = (near.x0 - size[0], (near.x0 + near.x1 - size[0]) / 2, near.x1)[right + 1]
    y = (near.y0 - size[1], (near.y0 + near.y1 - size[1]) / 2, near.y1)[up + 1]
    return Bbox.from_bounds(x, y, size[0], size[1])


def _inside(axes: Axes, box: Bbox) -> bool:
    area = axes.bbox
    return bool(area.x0 <= box.x0 and box.x1 <= area.x1 and area.y0 <= box.y0 and box.y1 <= area.y1)


def _move(note: Annotation, right: int, up: int, distance: float) -> None:
    note.set_position((right * distance, up * distance))
    note.set_horizontalalignment(("right", "center", "left")[right + 1])
    note.set_verticalalignment(("top", "center", "bottom")[up + 1])
    if note.arrow_patch is not None:
        note.arrow_patch.set_visible(distance > _DISTANCES[0])


def _annotation(axes: Axes, label: PointLabel) -> Annotation:
    arrow = {"arrowstyle": "-", "color": label.color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3, "visible": False}
    note = axes.annotate(
        label.text, (label.x, label.y), xytext=(0, 0), textcoords="offset points", arrowprops=arrow,
        fontsize=label.size, fontweight="bold" if label.bold else "normal", color=label.color, parse_math=False,
    )  # fmt: skip
    note.set_in_layout(False)
    return note
