"""The files of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vtw_search.errors import StoreError
from vtw_search.files import write_atomically, write_text_atomically
from vtw_search.report.confirmation import confirmation_frame
from vtw_search.report.curves import curves_figure
from vtw_search.report.front import front_figure
from vtw_search.report.page import front_page
from vtw_search.report.tables import front_frame
from vtw_search.results import StudyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(results: Sequence[StudyResult], folder: Path) -> dict[str, list[Path]]:
    """Write each task's `front.csv`, `front.html`, `front.png` and `curves.png`, and `curves.png` of all tasks.

    A task whose finalists were tested has `confirmation.csv` as well.

    Returns:
        The paths by task; the key "" has those that all tasks share.

    Raises:
        StoreError: a task's name cannot be a folder's name, or a file cannot be written; no file is left half-written.
    """
    for result in results:
        _check_name(result.task)
    written = {result.task: _write_task(result, folder / result.task) for result in results}
    return written | {"": [_write_png(curves_figure(results), folder / "curves.png")] if results else []}


def _check_name(task: str) -> None:
    if task in ("", ".", "..") or any(mark in task for mark in "/\\\0"):
        raise StoreError("a task's name must be usable as a folder's name", value=task, remedy="rename the task")


def _write_task(result: StudyResult, folder: Path) -> list[Path]:
    return [
        *_write_tests(result, folder),
        write_text_atomically(folder / "front.csv", front_frame(result).to_csv(index=False)),
        write_text_atomically(folder / "front.html", front_page(result)),
        _write_png(front_figure(result), folder / "front.png"),
        _write_png(curves_figure([result]), folder / "curves.png"),
    ]


def _write_tests(result: StudyResult, folder: Path) -> list[Path]:
    if result.confirmation is None:
        return []
    text = confirmation_frame(result.confirmation).to_csv(index=False)
    return [write_text_atomically(folder / "confirmation.csv", text)]


def _write_png(figure: Figure, path: Path) -> Path:
    # Without the version of matplotlib in it, the same study gives the same bytes.
    return write_atomically(path, lambda staging: figure.savefig(staging, format="png", metadata={"Software": None}))
