"""What the figures share: size, colours, fonts, marks and footnotes.

Texts of users never go through mathtext: a dollar sign in a task's name is a dollar sign.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vtw_search.report import quantities
from vtw_search.results import Row, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart under every common colour blindness.
BLUE, VERMILLION, GREY, INK = "#0072B2", "#D55E00", "#6b6b6b", "#222222"
FONT, SMALL = 11.0, 9.5
# Nine inches at 900 pixels: 11 points are 15 pixels. Twice the pixels for sharp screens.
WIDTH_INCHES, DOTS_PER_INCH = 9.0, 200
_LINE_INCHES = 0.19
_CHARACTERS = 126


def blank_figure(
    height: float, x_label: str, *, width: float = 0.0, header: Sequence[str] = (), notes: Sequence[str] = ()
) -> Figure:
    """Return an empty figure of `height` inches between a header (its first line bold) and a label with footnotes.

    It is as wide as a README, or `width` inches if that is more.
    """
    from matplotlib.figure import Figure

    head, foot = _wrapped(header), _wrapped(notes)
    above, below = _LINE_INCHES * len(head) + 0.06, _LINE_INCHES * len(foot) + 0.4
    total = above + height + below
    size = (max(WIDTH_INCHES, width), total)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(rect=(0, below / total, 0.99, height / total))  # type: ignore[union-attr, call-arg]
    figure.text(0.5, (below - 0.22) / total, x_label, ha="center", fontsize=FONT, color=INK)
    _write_lines(figure, head, total - 0.16, FONT + 2, INK)
    _write_lines(figure, foot, below - 0.42, SMALL, GREY)
    return figure


def _wrapped(paragraphs: Iterable[str]) -> list[str]:
    return [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, _CHARACTERS)]


def _write_lines(figure: Figure, lines: Sequence[str], top: float, first_size: float, color: str) -> None:
    """Write lines downwards from `top` inches; a first line that is larger than the others is bold."""
    total = figure.get_figheight()
    for number, line in enumerate(lines):
        size = first_size if number == 0 else SMALL
        x, y = 0.11 / figure.get_figwidth(), (top - _LINE_INCHES * number) / total
        text = figure.text(x, y, line, va="center", fontsize=size, color=color, parse_math=False)
        text.set_fontweight("bold" if size > SMALL else "normal")


def style_axes(axes: Axes) -> None:
    """Take away what is not data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL, color=GREY, labelcolor=INK)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


MARKS = "Filled: every limit holds; open: a limit is broken; star: chosen; dashed: limits."


def draw_point(
    axes: Axes, row: Row, x: float, y: float, size: float = 5.5, *, color: str = BLUE, marker: str = "o"
) -> None:
    """Draw one row as `MARKS` says; the size is in points, colour and marker are of rows that were not chosen."""
    marker, size, color = ("*", 9 + size, VERMILLION) if row.chosen else (marker, size, color)
    face = color if row.feasible else "white"
    axes.plot([x], [y], marker, markersize=size, color=color, markerfacecolor=face, zorder=4 if row.chosen else 3)


def draw_limit(axes: Axes, level: float, text: str, *, above: bool, right: bool) -> None:
    """Draw a horizontal limit with its text above or below it, at its right or left end."""
    axes.axhline(level, color=INK, linewidth=1.1, linestyle="--")
    axes.annotate(
        text, (0.93 if right else 0.02, level), xycoords=axes.get_yaxis_transform(), xytext=(0, 3 if above else -4),
        textcoords="offset points", ha="right" if right else "left", va="bottom" if above else "top",
        fontsize=SMALL, color=INK,
    )  # fmt: skip


def accuracy_limit(result: StudyResult) -> tuple[float, str] | None:
    """Return the lowest accuracy that the limit on its drop leaves, and how to call it; None without that limit."""
    reference, drop = quantities.keep_all(result), quantities.bound(result, "accuracy_drop")
    level = None if reference is None else quantities.accuracy(reference).value
    return None if level is None or drop is None else (level - drop, f"drop ≤ {drop:g}")


def failure_notes(results: Sequence[StudyResult]) -> list[str]:
    """Return one footnote per reason why rows could not be drawn."""
    places: dict[str, list[str]] = {}
    for result in results:
        for reason, layers in quantities.failures(result).items():
            places.setdefault(reason, []).append(f"{quantities.one_line(result.task, 40)} {layers}")
    return [f"Not drawn, failed: {'; '.join(where)}: {reason}" for reason, where in places.items()]
