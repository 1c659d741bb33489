"""Locks between processes: waited for a stated time, then an error that says on what; free again with their holder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from vtw_search.errors import StoreError

# They are held for milliseconds, or while the tables of a database are made: seconds, for each process in line.
WAIT_S = 60.0


class LockError(StoreError, OSError):
    """A lock cannot be had: another process has held it for too long, or its file cannot be written."""


@contextmanager
def locked(path: Path, what: str, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock of a file for the block; it is the system's, so that a process that dies gives it back.

    Args:
        path: of the lock; its folder is made.
        what: it guards, for messages.
        wait_s: for how long others may have it.

    Raises:
        LockError: it cannot be had.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = _acquired(lock, wait_s)
    except OSError as error:
        remedy = f"{error}; free space or fix the permissions and run again"
        raise LockError(f"{what} must be writable", value=str(path), remedy=remedy) from error
    if not mine:
        remedy = "another process holds it: let that one finish, or end it, and run again"
        raise LockError(f"{what} must be free within {wait_s:g} s", value=str(path), remedy=remedy)
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: BaseFileLock, wait_s: float) -> bool:
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        return False
    return True
