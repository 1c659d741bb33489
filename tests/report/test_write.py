"""The files of a report: complete or absent."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.report.studies import keep_all_study, study
from vtw_search.errors import StoreError
from vtw_search.report import front_frame, write_report

FILES = ["front.csv", "front.html", "front.png", "curves.png"]


def test_every_task_gets_its_files_and_all_share_the_curves(tmp_path: Path) -> None:
    results = [study("a"), keep_all_study("b")]
    written = write_report(results, tmp_path)
    assert written == {
        "a": [tmp_path / "a" / name for name in FILES],
        "b": [tmp_path / "b" / name for name in FILES],
        "": [tmp_path / "curves.png"],
    }
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(itertools.chain(*written.values()))
    assert (tmp_path / "a" / "front.csv").read_text() == front_frame(results[0]).to_csv(index=False)
    for path in tmp_path.rglob("*.png"):
        picture = imread(path)
        assert picture.shape[1] == 1800
        assert picture[..., :3].std() > 0.02


def test_nothing_is_written_for_no_results(tmp_path: Path) -> None:
    assert write_report([], tmp_path / "none") == {"": []}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("task", ["", ".", "..", "../up", "a/b", "a\\b", "/tmp/x"])
def test_a_task_cannot_write_outside_its_folder(tmp_path: Path, task: str) -> None:
    with pytest.raises(StoreError, match="folder's name"):
        write_report([study("fine"), study(task)], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("complete", range(5))
def test_a_full_disk_leaves_no_half_written_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: int
) -> None:
    calls = iter(range(100))

    def fsync(_: int) -> None:
        if next(calls) >= complete:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match="No space left"):
        write_report([study()], tmp_path)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == sorted(FILES[:complete])


def test_a_picture_that_cannot_be_written_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_report([study()], tmp_path)["digits_read"][2].read_bytes()

    def savefig(_: Figure, path: Path, **__: object) -> None:
        path.write_bytes(b"\x89PNG")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(StoreError):
        write_report([study()], tmp_path)
    assert (tmp_path / "digits_read" / "front.png").read_bytes() == old
    assert not list(tmp_path.rglob("*.part"))
