"""URLs of database files: whatever is in a folder's name stays part of the name."""

from __future__ import annotations

import os

from sqlalchemy import URL, make_url


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """Return the URL of an SQLite file, for SQLAlchemy and all that use it."""
    return URL.create("sqlite", database=os.fspath(path)).render_as_string()


def sqlite_file(url: str) -> str | None:
    """Return the path in the URL of an SQLite file; None for any other URL, and for a database in memory."""
    parsed = make_url(url) if url.startswith("sqlite") else None
    path = None if parsed is None else parsed.database
    return None if path in (None, "", ":memory:") else path
