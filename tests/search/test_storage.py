"""Storages that are locked, full, read-only, damaged or away: asked again, or one error that says what to do."""

from __future__ import annotations

import multiprocessing
import resource
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from tests.search.records import row_of
from tests.servers import Server, postgres
from vtw_search.errors import MissingExtraError, StoreError
from vtw_search.search.limits import Limits
from vtw_search.search.patience import Patience
from vtw_search.search.storage import Storage, make_storage
from vtw_search.search.trials import record_trials

NO_LIMITS = Limits(None, "answer", "reference_candidate")
ROWS = [row_of(12, 1000), row_of(3, 500), row_of(2, 400)]


def record(storage: Storage) -> optuna.Study:
    return storage.patience.call(lambda: record_trials(storage.studies, "t", ROWS, NO_LIMITS, {}))


@pytest.fixture(params=["sqlite", "journal", "postgres"])
def open_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Storage]:
    url = request.getfixturevalue("server").url if request.param == "postgres" else None
    return lambda: make_storage(request.param, tmp_path / "runs" / "mine", url, 2, lambda text: None)


def test_trials_are_there_when_it_is_opened_again(open_storage: Callable[[], Storage]) -> None:
    record(open_storage())
    study = record(open_storage())
    assert [trial.values for trial in study.trials] == [[0.9, 1000], [0.9, 500], [0.9, 400]]
    assert study.trials[1].constraints == {"kl_nats": -1.0}
    assert open_storage().leases().take("a", "me", 60)
    assert not open_storage().leases().take("a", "you", 60)


def open_new(folder: Path) -> None:
    assert make_storage("sqlite", folder, None, 5, print).studies.get_all_studies() == []


@pytest.mark.slow
def test_a_new_database_may_be_opened_by_several_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    processes = [context.Process(target=open_new, args=(tmp_path / "mine",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * 4


def lock(database: Path, seconds: float) -> threading.Thread:
    """Hold SQLite's lock for some seconds; returns when it is held."""
    held = threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("begin exclusive")
        held.set()
        time.sleep(seconds)
        connection.execute("rollback")
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    return thread


@pytest.mark.slow
def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    storage = make_storage("sqlite", tmp_path, None, 20, said.append)
    storage.studies.get_all_studies()
    thread = lock(tmp_path / "optuna.db", 6)
    assert len(record(storage).trials) == 3
    thread.join()
    assert said == [f"{tmp_path}/optuna.db does not answer (database is locked); trying for 20 s"]


@pytest.mark.slow
def test_a_database_that_stays_locked_is_an_error_and_not_damaged(tmp_path: Path) -> None:
    storage = make_storage("sqlite", tmp_path, None, 0.5, lambda text: None)
    record(storage)
    thread = lock(tmp_path / "optuna.db", 4)
    with pytest.raises(StoreError, match=r"must answer: database is locked, got .*optuna.db'; see to it and run again"):
        record(make_storage("sqlite", tmp_path, None, 0.5, lambda text: None))
    thread.join()
    assert len(record(storage).trials) == 3


def test_a_read_only_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the study must be writable.*free space or fix the permissions"):
        _ = make_storage("sqlite", Path("/proc/nowhere"), None, 1, lambda text: None).studies


def test_a_damaged_database_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_bytes(b"no database at all " * 100)
    began = time.monotonic()
    with pytest.raises(StoreError, match="file is not a database"):
        _ = make_storage("sqlite", tmp_path, None, 30, lambda text: None).studies
    assert time.monotonic() - began < 10


def test_a_torn_journal_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    storage = make_storage("journal", tmp_path, None, 1, lambda text: None)
    record(storage)
    journal = tmp_path / "optuna.journal"
    journal.write_bytes(journal.read_bytes()[:-7])
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":0}\n{"op_code":0}\n')
    with pytest.raises(StoreError, match="a study can be deleted: it is made anew"):
        record(make_storage("journal", tmp_path, None, 1, lambda text: None))
    journal.unlink()
    assert len(record(make_storage("journal", tmp_path, None, 1, lambda text: None)).trials) == 3


@pytest.mark.parametrize("content", [b"\xcd\x07\n", b"[1]\n", b'{"a": 1}\n', b"{\n{\n"])
def test_a_journal_that_is_none_is_an_error_that_says_what_to_do(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "optuna.journal").write_bytes(content)
    with pytest.raises(StoreError, match="a study can be deleted: it is made anew"):
        record(make_storage("journal", tmp_path, None, 1, lambda text: None))


def test_a_journal_lock_of_a_killed_process_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtw_search.search.storage._DEAD_LOCK_S", 3)
    (tmp_path / "optuna.journal.lock").touch()
    assert len(record(make_storage("journal", tmp_path, None, 1, lambda text: None)).trials) == 3


def test_a_full_disk_is_an_error_and_the_study_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit on the size of files is a full disk for this process."""
    storage = make_storage("sqlite", tmp_path, None, 1, lambda text: None)
    storage.studies.get_all_studies()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        with pytest.raises(StoreError, match="the database of the study must answer: "):
            record(storage)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert len(record(make_storage("sqlite", tmp_path, None, 1, lambda text: None)).trials) == 3


def test_lost_connections_are_made_anew(server: Server, tmp_path: Path) -> None:
    storage = make_storage("postgres", tmp_path / "lost", server.url, 20, lambda text: None)
    leases = storage.leases()
    record(storage)
    server.cut_connections()
    assert len(record(storage).trials) == 3
    server.cut_connections()
    assert leases.take("a", "me", 60)


@pytest.mark.slow
def test_a_server_that_comes_back_is_waited_for_and_one_that_does_not_is_an_error(tmp_path: Path) -> None:
    said: list[str] = []
    with postgres() as own:
        storage = make_storage("postgres", tmp_path, own.url, 30, said.append)
        record(storage)
        own.stop()
        back = threading.Timer(2, own.start)
        back.start()
        assert len(record(storage).trials) == 3
        back.join()
        assert len(said) == 1
        own.stop()
        with pytest.raises(StoreError, match=r"must answer: .*got 'postgresql://vtw@127.0.0.1.*run again"):
            _ = make_storage("postgres", tmp_path, own.url, 1, said.append).studies


def test_a_password_is_in_no_message() -> None:
    shown = make_storage("postgres", Path("runs"), "postgresql://me:secret@host/db", 1, print).patience.database
    assert "secret" not in shown


def test_a_missing_client_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"needs psycopg; pip install 'vtw-search\[workers\]'"):
        _ = make_storage("postgres", tmp_path, "postgresql://me@host/db", 1, print).studies


def test_a_client_that_waits_longer_than_the_patience_is_no_answer() -> None:
    now, said = [0.0], list[str]()

    def waits() -> None:
        now[0] += 5
        raise OperationalError("", {}, sqlite3.OperationalError("database is locked"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        with pytest.raises(StoreError):
            Patience("d", 1, said.append, lambda seconds: None).call(waits)
    assert len(said) == 1


def test_patience_begins_anew_after_an_answer_that_lasted() -> None:
    now, said, calls = [0.0], list[str](), [0]
    locked = OperationalError("", {}, sqlite3.OperationalError("database is locked"))

    def sometimes() -> str:
        calls[0] += 1
        now[0] += 100 if calls[0] == 3 else 1
        if calls[0] <= 4:
            raise locked
        return "done"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        assert Patience("d", 10, said.append, lambda seconds: None).call(sometimes) == "done"
    assert len(said) == 2
