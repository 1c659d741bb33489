"""A PostgreSQL server of the tests' own, in a folder that is thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        programs: folder of PostgreSQL's programs.
        data: folder of its data.
        port: on 127.0.0.1.
    """

    programs: Path
    data: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://vtw@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        places = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.data}"
        options = f"{places} -c fsync=off"
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.data / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def sql(self, statement: str) -> list[str]:
        """Run a statement; returns the first column of what it gives."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return [str(row[0]) for row in cursor.fetchall()] if cursor.description else []

    def cut_connections(self) -> None:
        """Drop every connection, as a server that is restarted does."""
        others = "from pg_stat_activity where usename = 'vtw' and pid <> pg_backend_pid()"
        self.sql(f"select pg_terminate_backend(pid) {others}")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.programs / program), *arguments], check=True, stdout=subprocess.DEVNULL, cwd=self.data, **_user()
        )


def _why_not() -> str | None:
    """Why no server can be started here, or None."""
    if find_spec("psycopg") is None:
        return "psycopg is not installed (extra `workers`)"
    if _programs() is None:
        return "no PostgreSQL is installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and not _user():
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


@contextmanager
def postgres() -> Iterator[Server]:
    """Run a server for the block; skips the test where none can be started."""
    reason = _why_not()
    if reason is not None:
        pytest.skip(reason)
    programs = _programs()
    assert programs is not None
    # Not below pytest's folders, which other users may not enter.
    data = Path(tempfile.mkdtemp(prefix="vtw-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        server = Server(programs, data, _free_port())
        server._run("initdb", "-D", str(data), "-U", "vtw", "-A", "trust", "--no-sync", "-E", "UTF8")
        server.start()
        try:
            yield server
        finally:
            if (data / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(data)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return max(_DEBIAN.glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


def _user() -> dict[str, Any]:
    """As whom to run: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        return {}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
