"""Databases that do not answer: asked again for a while, then one error that says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from vtw_search.errors import StoreError

_Result = TypeVar("_Result")
# A journal whose last line was torn by a full disk is no JSON any more, and maybe no text.
_ERRORS = (SQLAlchemyError, StorageInternalError, json.JSONDecodeError, UnicodeDecodeError)
# No single wait for a lock or a connection is longer: an action that took longer was answered in between.
_LONGEST_WAIT_S = 10.0


@dataclass(frozen=True)
class Patience:
    """How long a database may not answer.

    Attributes:
        database: its name in messages, without secrets.
        seconds: for which it is asked again.
        say: takes one sentence for the user.
        sleep: waits for some seconds.
    """

    database: str
    seconds: float
    say: Callable[[str], None] = print
    sleep: Callable[[float], None] = time.sleep

    def call(self, action: Callable[[], _Result]) -> _Result:
        """Return what `action` returns; while the database does not answer, begin it again.

        Args:
            action: may be broken off anywhere and begun again.

        Raises:
            StoreError: the database is damaged, full or read-only, or did not answer for too long.
        """
        given_up: float | None = None
        while True:
            began = time.monotonic()
            try:
                return action()
            except _ERRORS as error:
                now, cause = time.monotonic(), _cause(error)
                if given_up is None or now - began > max(self.seconds, _LONGEST_WAIT_S):
                    # The first time, or it had answered for long before.
                    given_up = now + self.seconds
                    self.say(f"{self.database} does not answer ({_line(cause)}); trying for {self.seconds:g} s")
                if not _may_pass(cause) or now >= given_up:
                    raise self._error(cause) from error
                self.sleep(min(1.0, self.seconds / 4))

    @property
    def wait_s(self) -> float:
        """For how long the client of a database may wait at a time, so that it is asked several times."""
        return min(5.0, self.seconds / 4)

    def _error(self, cause: BaseException) -> StoreError:
        remedy = "see to it and run again; what was measured is kept, and a study can be deleted: it is made anew"
        return StoreError(f"the database of the study must answer: {_line(cause)}", value=self.database, remedy=remedy)


def _cause(error: Exception) -> BaseException:
    """Return the error of SQLAlchemy behind the one of Optuna."""
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error


def _may_pass(cause: BaseException) -> bool:
    """Whether a database may answer again: SQLite when its lock is given back, a server when it is reached."""
    if not isinstance(cause, OperationalError | InterfaceError):
        return False
    of_sqlite = type(cause.orig).__module__.startswith("sqlite3")
    return "locked" in str(cause.orig) or not of_sqlite


def _line(cause: BaseException) -> str:
    told = getattr(cause, "orig", None) or cause
    return (str(told).strip().splitlines() or [type(told).__name__])[0]
