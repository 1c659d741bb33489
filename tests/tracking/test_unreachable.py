"""A store that is away, silent or broken: one warning, in time, and the search goes on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient

from tests.tracking.conftest import COMMAND, CONFIG
from tests.tracking.factory import make_study
from vtw_search.tracking import MlflowTracker, TrackingSettings


@pytest.fixture
def closed_port() -> int:
    """A port of this machine where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def track(uri: str, folder: Path, timeout_s: float = 2.0) -> tuple[list[str], float]:
    """Track a search there; return the warnings and the seconds it took."""
    warnings: list[str] = []
    begin = time.monotonic()
    tracker = MlflowTracker(TrackingSettings(uri, timeout_s=timeout_s), "s", folder, warn=warnings.append)
    tracker.start(CONFIG, COMMAND)
    for task in ("a", "b", "c"):
        tracker.log_study(make_study(task))
    tracker.finish("FINISHED")
    return warnings, time.monotonic() - begin


def test_a_server_that_is_away(closed_port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    (warning,), seconds = track(f"http://me:s3cret@127.0.0.1:{closed_port}", tmp_path)
    assert warning == (
        f"MLflow at http://***@127.0.0.1:{closed_port} cannot be used ([Errno 111] Connection refused). "
        f"The search goes on without it, and everything is kept in {tmp_path}; "
        "run the same command again to log it later."
    )
    assert seconds < 2
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before


def test_a_server_that_does_not_answer(silent_port: int, tmp_path: Path) -> None:
    (warning,), seconds = track(f"http://127.0.0.1:{silent_port}", tmp_path)
    assert "timed out" in warning
    assert seconds < 3.5


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql"])
def test_a_database_that_is_away(scheme: str, closed_port: int, tmp_path: Path) -> None:
    (warning,), seconds = track(f"{scheme}://me:s3cret@127.0.0.1:{closed_port}/mlflow", tmp_path)
    assert "Connection refused" in warning
    assert "s3cret" not in warning
    assert seconds < 2


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be taken for one" * 20)
    (warning,), seconds = track(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert "file is not a database" in warning
    assert seconds < 2


def test_a_store_of_an_unknown_kind(tmp_path: Path) -> None:
    (warning,), _ = track("gopher://host", tmp_path)
    assert "gopher" in warning


def test_a_server_that_goes_away(
    store: Path, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def create_run(*args: object, **kwargs: object) -> None:
        nonlocal calls
        calls += 1
        raise ConnectionResetError("gone")

    warnings: list[str] = []
    tracker = MlflowTracker(TrackingSettings(f"sqlite:///{store}/mlflow.db"), "s", tmp_path, warn=warnings.append)
    tracker.start(CONFIG, COMMAND)
    monkeypatch.setattr(MlflowClient, "create_run", create_run)
    tracker.log_study(make_study())
    tracker.log_study(make_study())
    tracker.finish("FINISHED")
    assert calls == 1
    assert len(warnings) == 1
    assert "(gone)" in warnings[0]


def test_the_cause_is_the_store_s_not_the_search_s(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = MlflowTracker(TrackingSettings("gopher://host"), "s", tmp_path, warn=warnings.append)
    try:
        raise FileNotFoundError("an error of the search")
    except FileNotFoundError:
        tracker.start(CONFIG, COMMAND)
    assert "an error of the search" not in warnings[0]


def test_another_search_that_holds_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtw_search.tracking.store.WAIT_S", 0.1)
    with FileLock(tmp_path / ".mlflow.db.lock"):
        (warning,), _ = track(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert "MLflow's database must be free within 0.1 s" in warning
