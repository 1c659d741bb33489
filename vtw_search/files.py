"""Files: names that may be parts of paths, and atomic writes, after which a file is the old or the complete new one."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from vtw_search.errors import StoreError

_PLAIN, _LONGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"), 100


def _plain(name: str) -> str:
    if len(name) > _LONGEST or not _PLAIN.fullmatch(name):
        raise ValueError(
            f"a name of files is letters, digits, '.', '_' and '-', begins with a letter or digit and has {_LONGEST} "
            "characters at most; choose another name"
        )
    return name


# What tasks and searches are called: files and folders get this name.
PlainName = Annotated[
    str,
    AfterValidator(_plain),
    WithJsonSchema({"type": "string", "pattern": f"^{_PLAIN.pattern}$", "maxLength": _LONGEST}),
]


def write_text_atomically(path: Path, text: str) -> Path:
    """Replace `path` by `text`, or leave it untouched and raise StoreError (a full disk, a read-only folder)."""
    return write_atomically(path, lambda staging: staging.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a file beside `path`, flush it to disk and rename it; errors as `write_text_atomically`."""
    # Two processes may write one file, on two machines under one process id.
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(staging)
        with staging.open("rb") as stream:
            os.fsync(stream.fileno())
        staging.replace(path)
    except OSError as error:
        remedy = f"{error}; free space or fix the permissions and run again"
        raise StoreError("a result must be writable", value=str(path), remedy=remedy) from error
    finally:
        # Gone already if it was renamed.
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
    return path
