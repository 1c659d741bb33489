"""The files of a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vtw_search.errors import StoreError
from vtw_search.files import write_atomically, write_text_atomically
from vtw_search.report.baselines import baselines_frame
from vtw_search.report.confirmation import confirmation_frame
from vtw_search.report.curves import curves_figure, has_curve
from vtw_search.report.front import front_figure
from vtw_search.report.heatmap import transfer_figure
from vtw_search.report.page import front_page
from vtw_search.report.tables import front_frame
from vtw_search.report.transfer import transfer_frame
from vtw_search.results import StudyResult
from vtw_search.transfer import Sharing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(results: Sequence[StudyResult], folder: Path, sharing: Sharing | None = None) -> dict[str, list[Path]]:
    """Write each task's `front.csv`, `front.html` and `front.png`, and what belongs to all of them.

    A task whose finalists were tested has `confirmation.csv` as well, one with baselines `baselines.csv`, and one with
    withdrawals `curves.png`, which is drawn for all of these tasks together, too. `sharing.json`, `transfer.csv` and
    `transfer.png` are about several tasks.

    Returns:
        The paths by task; the key "" has those that all tasks share.

    Raises:
        StoreError: a task's name cannot be a folder's name, or a file cannot be written; no file is left half-written.
    """
    for result in results:
        _check_name(result.task)
    written = {result.task: _write_task(result, folder / result.task, sharing) for result in results}
    return written | {"": [*_write_curves(results, folder), *_write_sharing(sharing, folder)]}


def _check_name(task: str) -> None:
    if task in ("", ".", "..") or any(mark in task for mark in "/\\\0"):
        raise StoreError("a task's name must be usable as a folder's name", value=task, remedy="rename the task")


def _write_task(result: StudyResult, folder: Path, sharing: Sharing | None) -> list[Path]:
    return [
        *_write_tests(result, folder),
        *_write_baselines(result, folder),
        write_text_atomically(folder / "front.csv", front_frame(result).to_csv(index=False)),
        write_text_atomically(folder / "front.html", front_page(result, sharing)),
        _write_png(front_figure(result), folder / "front.png"),
        *_write_curves([result], folder),
    ]


def _write_tests(result: StudyResult, folder: Path) -> list[Path]:
    if result.confirmation is None:
        return []
    text = confirmation_frame(result.confirmation).to_csv(index=False)
    return [write_text_atomically(folder / "confirmation.csv", text)]


def _write_baselines(result: StudyResult, folder: Path) -> list[Path]:
    if not result.baselines:
        return []
    return [write_text_atomically(folder / "baselines.csv", baselines_frame(result).to_csv(index=False))]


def _write_curves(results: Sequence[StudyResult], folder: Path) -> list[Path]:
    drawn = [result for result in results if has_curve(result)]
    return [_write_png(curves_figure(drawn), folder / "curves.png")] if drawn else []


def _write_sharing(sharing: Sharing | None, folder: Path) -> list[Path]:
    if sharing is None:
        return []
    return [
        write_text_atomically(folder / "sharing.json", json.dumps(sharing.as_dict(), indent=2) + "\n"),
        write_text_atomically(folder / "transfer.csv", transfer_frame(sharing).to_csv(index=False)),
        _write_png(transfer_figure(sharing), folder / "transfer.png"),
    ]


def _write_png(figure: Figure, path: Path) -> Path:
    # Without the version of matplotlib in it, the same study gives the same bytes.
    return write_atomically(path, lambda staging: figure.savefig(staging, format="png", metadata={"Software": None}))
