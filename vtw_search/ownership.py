"""Who works in a folder: one process alone, or several that share it. Who dies owns nothing any more."""

from __future__ import annotations

import fcntl
import getpass
import math
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TextIO

from pydantic import BaseModel, Field, TypeAdapter

from vtw_search.errors import InUseError, StoreError
from vtw_search.files import read_json, write_text_atomically

_LOOK_EVERY_S, _SAY_EVERY_S = 0.5, 30.0


def current_user() -> str:
    """Return the name of the user; a container may run under a number that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


class Owner(BaseModel):
    """What others are told of a process that works in a folder.

    Attributes:
        what: it does there.
        process, user, host: which it is.
        since: when it began, with its time zone.
    """

    what: str
    process: int = Field(default_factory=os.getpid)
    user: str = Field(default_factory=current_user)
    host: str = Field(default_factory=socket.gethostname)
    since: str = Field(default_factory=lambda: datetime.now(UTC).astimezone().isoformat(" ", timespec="seconds"))

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended, as far as this machine can tell; another one may own the folder by now."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def __str__(self) -> str:
        return f"{self.what}, process {self.process} of {self.user} on {self.host}, since {self.since}"


class Ownership:
    """The right to work in a folder, for a `with` block; the system takes it from a process that dies.

    A folder that is there is taken at the beginning of the block; one that is not, when `take` is called, so that
    nothing is made before it is needed.

    Args:
        folder: which.
        what: is done there, for others.
        shared: whether others may work there, too, who share it as well.
        wait_s: for how long it is waited for.
        waits: how a user asks for that, for messages.
        say: takes one sentence for the user.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        *,
        say: Callable[[str], None],
        shared: bool = False,
        wait_s: float = 0.0,
        waits: str = "",
    ) -> None:
        self.folder, self.shared, self.wait_s = folder, shared, wait_s
        self._say, self._waits = say, waits
        self._stream: TextIO | None = None
        self._owner_here = Owner(what=what)

    def __enter__(self) -> Self:
        if self.folder.exists():
            self.take()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            if self._noted() == self._owner_here:
                self._note.unlink(missing_ok=True)
            self._stream.close()
            self._stream = None

    def take(self) -> None:
        """Take the folder, unless it is taken already, and make it if it does not exist.

        Raises:
            InUseError: another process has it, and had it for all the time that was to be waited.
            StoreError: it cannot be written.
        """
        if self._stream is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stream = (self.folder / ".owner.lock").open("a+")  # shared locks of network file systems want to read
        except OSError as error:
            remedy = f"{error}; free space or fix the permissions and run again"
            raise StoreError("a folder must be writable", value=str(self.folder), remedy=remedy) from error
        try:
            self._wait(self._stream)
            write_text_atomically(self._note, self._owner_here.model_dump_json(indent=2) + "\n")
        except BaseException:
            self.__exit__()
            raise

    def _wait(self, stream: TextIO) -> None:
        began, said = time.monotonic(), -_SAY_EVERY_S
        while not _locked(stream, self.shared):
            waited = time.monotonic() - began
            if waited >= self.wait_s:
                raise self._in_use()
            if waited - said >= _SAY_EVERY_S:
                said = waited
                most = "" if math.isinf(self.wait_s) else f", {self.wait_s - waited:.0f} s at most"
                self._say(f"{self.folder} is in use by {self._owner()}; waiting{most}")
            time.sleep(min(_LOOK_EVERY_S, self.wait_s - waited))

    @property
    def _note(self) -> Path:
        return self.folder / ".owner.json"

    def _noted(self) -> Owner | None:
        try:
            return read_json(self._note, TypeAdapter(Owner), "it is written anew")
        except StoreError:
            return None  # it has not written its note yet, or cannot

    def _owner(self) -> str:
        owner = self._noted()
        return "another process" if owner is None or owner.is_gone else str(owner)

    def _in_use(self) -> InUseError:
        remedy = f"{self._owner()}, has it; end that one, or wait for it{self._waits and f': {self._waits}'}"
        return InUseError("one process at a time works in a folder", value=str(self.folder), remedy=remedy)


def _locked(stream: TextIO, shared: bool) -> bool:
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        remedy = f"{error}; put runs on a file system that offers locks"
        raise StoreError("a folder must be lockable", value=stream.name, remedy=remedy) from error
    return True
