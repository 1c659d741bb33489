"""Where Optuna's studies and the workers' leases are kept: an SQLite file, a journal file, or PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy import create_engine, make_url

from vtw_search.databases import sqlite_url
from vtw_search.errors import MissingExtraError, StoreError
from vtw_search.locks import WAIT_S, locked
from vtw_search.search.leases import FileLeases, LeaseTable, SqlLeases
from vtw_search.search.patience import Patience

# A journal's lock is held for milliseconds; an older one was left by a process that was killed.
_DEAD_LOCK_S = 10


@dataclass(frozen=True)
class Storage:
    """The storage of one search.

    Attributes:
        kind: `sqlite`, `journal` or `postgres`.
        folder: `runs/<search>`, which all workers see.
        url: of the PostgreSQL database; None for files.
        patience: towards it.
    """

    kind: str
    folder: Path
    url: str | None
    patience: Patience

    @cached_property
    def studies(self) -> BaseStorage:
        """Optuna's storage, opened and made when it is first asked for.

        Raises:
            MissingExtraError: the client of the database is not installed.
            StoreError: it cannot be opened.
        """
        # Optuna's tables are made by one process: two that do it at the same time are in each other's way.
        with self._alone():
            try:
                return self.patience.call(self._open)
            except OSError as error:
                remedy = f"{error}; free space or fix the permissions and run again"
                raise StoreError("the study must be writable", value=self.patience.database, remedy=remedy) from error

    def _alone(self) -> AbstractContextManager[None]:
        wait_s = WAIT_S + self.patience.seconds
        return locked(self.folder / "storage.lock", "the study", wait_s)

    def leases(self) -> LeaseTable:
        """Return the table of the workers' leases: in the same database, or a file beside the study."""
        if self.url is None:
            return FileLeases(self.folder / "leases.json")
        engine = create_engine(_with_driver(self.url), **self._client)
        with self._alone():
            return SqlLeases(engine, self.folder.name, self.patience)

    def _open(self) -> BaseStorage:
        if self.kind == "sqlite":
            url = sqlite_url(self.folder.absolute() / "optuna.db")
            return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": self.patience.wait_s}})
        if self.kind == "journal":
            path = self.folder.absolute() / "optuna.journal"
            journal = JournalFileBackend(str(path), JournalFileOpenLock(str(path), _DEAD_LOCK_S))
            for entry in journal.read_logs(0):
                if not isinstance(entry, dict) or "op_code" not in entry:
                    raise json.JSONDecodeError("no entry of a journal", str(entry)[:80], 0)
            return JournalStorage(journal)
        assert self.url is not None
        return RDBStorage(_with_driver(self.url), engine_kwargs=self._client)

    @property
    def _client(self) -> dict[str, Any]:
        """How PostgreSQL is asked: connections that were lost are made anew, in whole seconds, 2 at least."""
        return {"pool_pre_ping": True, "connect_args": {"connect_timeout": max(2, round(self.patience.wait_s))}}


def make_storage(kind: str, folder: Path, url: str | None, patience_s: float, say: Callable[[str], None]) -> Storage:
    """Return the storage of a search.

    Args:
        kind, folder, url: as in `Storage`.
        patience_s: for how long it may not answer.
        say: takes one sentence for the user.
    """
    shown = str(folder / f"optuna.{'db' if kind == 'sqlite' else 'journal'}")
    if url is not None:
        shown = make_url(url).render_as_string(hide_password=True)
    return Storage(kind, folder, url, Patience(shown, patience_s, say))


def _with_driver(url: str) -> str:
    """Return the URL with psycopg as its driver; MissingExtraError where that is not installed."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("storage=postgres needs psycopg", remedy="pip install 'vtw-search[workers]'") from error
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
