"""Files of one JSON object a line, appended by several processes; a line that a kill has torn is no line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from vtw_search.errors import StoreError
from vtw_search.files import unreadable
from vtw_search.locks import locked

_Row = TypeVar("_Row")


class Lines(Generic[_Row]):
    """The rows of one file.

    A last line without its newline counts if it is a whole row; otherwise readers skip it and the next append drops it.

    Args:
        path: of the file.
        kind: of a row.
        remedy: what to do about a line that is no row.
    """

    def __init__(self, path: Path, kind: TypeAdapter[_Row], remedy: str) -> None:
        self.path, self._kind, self._remedy = path, kind, remedy

    def rows(self) -> list[_Row]:
        """Return all rows, none where there is no file; StoreError names a line that is none."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unreadable(self.path, error, self._remedy) from error
        *whole, last = content.split(b"\n")
        found = [self._row(number, line) for number, line in enumerate(whole, start=1) if line.strip()]
        return [*found, self._kind.validate_json(last)] if self._is_row(last) else found

    def append(self, row: _Row) -> None:
        """Add a row, on the disk when this returns; StoreError if the file cannot be written."""
        self.append_unless(None, row)

    def append_unless(self, known: Callable[[Sequence[_Row]], bool] | None, row: _Row) -> None:
        """Add a row unless `known` says that the rows have it already; nobody adds one in between."""
        with locked(self.path.with_suffix(".lock"), f"the file {self.path.name}"):
            if known is not None and known(self.rows()):
                return
            try:
                self._write(self._kind.dump_json(row) + b"\n")
            except OSError as error:
                remedy = f"{error}; free space or fix the permissions and run again"
                raise StoreError("a result must be writable", value=str(self.path), remedy=remedy) from error

    def _write(self, line: bytes) -> None:
        with self.path.open("a+b") as stream:
            stream.write(self._joint(stream) + line)
            stream.flush()
            os.fsync(stream.fileno())

    def _joint(self, stream: BinaryIO) -> bytes:
        """Return what the next line has to begin with, after a torn last line was dropped."""
        size = stream.seek(0, os.SEEK_END)
        if not size:
            return b""
        stream.seek(size - 1)
        if stream.read() == b"\n":
            return b""
        stream.seek(0)
        last = stream.read().rpartition(b"\n")[2]
        if self._is_row(last):
            return b"\n"
        stream.truncate(size - len(last))
        return b""

    def _row(self, number: int, line: bytes) -> _Row:
        try:
            return self._kind.validate_json(line)
        except ValidationError as error:
            raise unreadable(self.path, error, f"line {number}: {self._remedy}") from error

    def _is_row(self, line: bytes) -> bool:
        try:
            self._kind.validate_json(line)
        except ValidationError:
            return False
        return True
