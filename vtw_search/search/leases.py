"""Leases: which worker is at which piece of work, and until when.

They only save double work. A worker that was stopped for longer than its lease may do a piece that another one has
taken over; both then write the same records, and a record counts once.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, Self

from pydantic import TypeAdapter
from sqlalchemy import Engine, text

from vtw_search.files import read_json, write_text_atomically
from vtw_search.locks import locked
from vtw_search.search.patience import Patience

_LEASES = TypeAdapter(dict[str, tuple[str, float]])
_REMEDY = "delete it and start the workers again: leases only save double work"


class LeaseTable(Protocol):
    """Where leases are noted. A lease has a name, an owner and an expiry; an expired one is free."""

    def take(self, name: str, owner: str, seconds: float) -> bool:
        """Take a lease that is free, or the owner's already; False while another owner has it."""

    def renew(self, owner: str, seconds: float) -> None:
        """Let all leases that an owner has run for `seconds` from now on; one that is late may still have them."""

    def release(self, name: str, owner: str) -> None:
        """Give a lease back; one that was lost meanwhile stays with whom it is."""

    def owners(self) -> set[str]:
        """Return who has a lease that has not expired."""


class FileLeases:
    """Leases in one file of a folder that all workers see.

    The lock around it is the system's, which is free again as soon as its holder is dead.

    Args:
        path: the file.
        clock: seconds; workers on several machines need clocks that agree to a few seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock

    def take(self, name: str, owner: str, seconds: float) -> bool:
        """See `LeaseTable`."""
        with self._opened() as leases:
            holder, expires = leases.get(name, (owner, 0.0))
            if holder != owner and expires > self._clock():
                return False
            leases[name] = (owner, self._clock() + seconds)
            return True

    def renew(self, owner: str, seconds: float) -> None:
        """See `LeaseTable`."""
        with self._opened() as leases:
            leases |= {
                name: (owner, self._clock() + seconds) for name, (holder, _) in leases.items() if holder == owner
            }

    def release(self, name: str, owner: str) -> None:
        """See `LeaseTable`."""
        with self._opened() as leases:
            if leases.get(name, ("", 0.0))[0] == owner:
                del leases[name]

    def owners(self) -> set[str]:
        """See `LeaseTable`."""
        with self._opened() as leases:
            return {owner for owner, expires in leases.values() if expires > self._clock()}

    @contextmanager
    def _opened(self) -> Iterator[dict[str, tuple[str, float]]]:
        with locked(self.path.with_suffix(".lock"), "the workers' leases"):
            before = read_json(self.path, _LEASES, _REMEDY) if self.path.exists() else {}
            leases = dict(before)
            yield leases
            if leases != before:
                write_text_atomically(self.path, json.dumps(leases, indent=2) + "\n")


class SqlLeases:
    """Leases in a table of a PostgreSQL database, by its clock.

    Args:
        engine: of the database.
        scope: separates searches.
        patience: towards the database.
    """

    def __init__(self, engine: Engine, scope: str, patience: Patience) -> None:
        self._engine, self._scope, self._patience = engine, scope, patience
        self._run(
            "create table if not exists vtw_leases (scope text, name text, owner text not null, "
            "expires timestamptz not null, primary key (scope, name))"
        )

    def take(self, name: str, owner: str, seconds: float) -> bool:
        """See `LeaseTable`."""
        taken = self._run(
            "insert into vtw_leases "
            "values (:scope, :name, :owner, clock_timestamp() + make_interval(secs => :seconds)) "
            "on conflict (scope, name) do update set owner = excluded.owner, expires = excluded.expires "
            "where vtw_leases.owner = excluded.owner or vtw_leases.expires <= clock_timestamp() returning owner",
            name=name, owner=owner, seconds=seconds,
        )  # fmt: skip
        return taken == [owner]

    def renew(self, owner: str, seconds: float) -> None:
        """See `LeaseTable`."""
        self._run(
            "update vtw_leases set expires = clock_timestamp() + make_interval(secs => :seconds) "
            "where scope = :scope and owner = :owner",
            owner=owner, seconds=seconds,
        )  # fmt: skip

    def release(self, name: str, owner: str) -> None:
        """See `LeaseTable`."""
        self._run(
            "delete from vtw_leases where scope = :scope and name = :name and owner = :owner", name=name, owner=owner
        )

    def owners(self) -> set[str]:
        """See `LeaseTable`."""
        return set(
            self._run("select distinct owner from vtw_leases where scope = :scope and expires > clock_timestamp()")
        )

    def _run(self, statement: str, **values: object) -> list[str]:
        def execute() -> list[str]:
            with self._engine.begin() as connection:
                result = connection.execute(text(statement), {"scope": self._scope, **values})
                return [str(row[0]) for row in result] if result.returns_rows else []

        return self._patience.call(execute)


class LeaseHolder:
    """One worker's leases, renewed in the background until they are given back or the process ends.

    Args:
        table: shared by all workers.
        owner: of this worker, and of no other process ever.
        seconds: after which a lease expires that is not renewed.
    """

    def __init__(self, table: LeaseTable, owner: str, seconds: float) -> None:
        self.table, self.owner, self.seconds = table, owner, seconds
        self._stop = threading.Event()
        self._problem: Exception | None = None
        self._renewer = threading.Thread(target=self._renew, name="leases", daemon=True)

    def __enter__(self) -> Self:
        # By this lease others know that the worker is alive while it has no other.
        self.table.take(self._presence, self.owner, self.seconds)
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._renewer.join()
        self.table.release(self._presence, self.owner)

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Hold a lease for the block, if it can be had; gives whether it could.

        Raises:
            StoreError: leases could not be renewed any more; whatever else a renewal fails with is raised as it is.
        """
        if self._problem is not None:
            raise self._problem
        mine = self.table.take(name, self.owner, self.seconds)
        try:
            yield mine
        finally:
            if mine:
                self.table.release(name, self.owner)

    @property
    def _presence(self) -> str:
        return f"worker {self.owner}"

    def _renew(self) -> None:
        while not self._stop.wait(self.seconds / 3):
            try:
                self.table.renew(self.owner, self.seconds)
                self._problem = None
            except Exception as error:  # told by the next `held`: a thread has nobody to raise it to
                self._problem = error
