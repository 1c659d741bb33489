"""The transfer table as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtw_search.report import drawing, quantities
from vtw_search.report.transfer import cell_lines, heat_of
from vtw_search.transfer import Sharing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vtw_search.results import Row

_LINE_INCHES, _COLUMN_INCHES, _LABEL_INCHES = 0.78, 1.7, 2.2
_NOTES = (
    "Cells: accuracy drop, KL in nats and share of keep-all's macs, on the samples that the search saw. Colour: the "
    "drop, full from 0.1 on. Framed and bold: a limit of that task is broken.",
)


def transfer_figure(sharing: Sharing) -> Figure:
    """Draw every task's policy, and the shared one, on every task; colour is the accuracy drop."""
    lines, tasks = list(sharing.lines()), sharing.tasks
    figure = drawing.blank_figure(
        _LINE_INCHES * len(lines) + 0.5, "", width=_LABEL_INCHES + _COLUMN_INCHES * len(tasks),
        header=["Each task's policy on the others", sharing.verdict], notes=_NOTES,
    )  # fmt: skip
    axes = figure.subplots()
    heats = [[heat_of(rows[task]) for task in tasks] for _, rows in lines]
    axes.imshow(heats, cmap="Oranges", vmin=0.0, vmax=1.6, aspect="auto")
    for place, (_, rows) in enumerate(lines):
        for column, task in enumerate(tasks):
            _draw_cell(axes, column, place, rows[task])
    _label_axes(axes, [f"{name}\n{_short(rows[tasks[0]])}" for name, rows in lines], [f"on {task}" for task in tasks])
    if sharing.shared is not None:
        axes.axhline(len(lines) - 1.5, color=drawing.INK, linewidth=1.5)
    return figure


def _short(row: Row) -> str:
    return quantities.one_line(row.measurement.policy.label(), 30)


def _draw_cell(axes: Axes, column: int, place: int, row: Row) -> None:
    from matplotlib.patches import Rectangle

    axes.text(
        column, place, "\n".join(cell_lines(row)), ha="center", va="center", fontsize=drawing.SMALL, color=drawing.INK,
        fontweight="normal" if row.feasible else "bold", parse_math=False,
    )  # fmt: skip
    if not row.feasible:
        box = Rectangle((column - 0.47, place - 0.45), 0.94, 0.9, fill=False, edgecolor=drawing.VERMILLION, linewidth=2)
        axes.add_patch(box)


def _label_axes(axes: Axes, lines: list[str], columns: list[str]) -> None:
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), [quantities.one_line(text, 24) for text in columns], parse_math=False)
    axes.set_yticks(range(len(lines)), lines, parse_math=False)
    axes.tick_params(labelsize=drawing.SMALL, length=0, labelcolor=drawing.INK)
    axes.spines[:].set_visible(False)
