"""Small files: names that may be parts of paths, written whole or not at all, and read as what they must be."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError, WithJsonSchema

from vtw_search.errors import StoreError

_Content = TypeVar("_Content")
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


def cache_folder() -> Path:
    """Return where things are kept that can be made again: `$XDG_CACHE_HOME/vtw-search`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vtw-search"


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


def with_home(path: str) -> str:
    """Return a path with `~` at its beginning replaced by the user's home; one of an unknown user stays as it is."""
    return os.path.expanduser(path)  # noqa: PTH111 - a path may be a Hub id, which stays as it is


def read_json(path: Path, kind: TypeAdapter[_Content], remedy: str) -> _Content:
    """Return the content of a JSON file as `kind`; StoreError with `remedy` if it is missing, torn or no such thing."""
    try:
        return kind.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise unreadable(path, error, remedy) from error


def is_json(path: Path) -> bool:
    """Tell whether there is a file of JSON."""
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def unreadable(path: Path, error: Exception, remedy: str) -> StoreError:
    """Return the error of a file that cannot be read as what it must be."""
    return StoreError(f"a stored file must be readable ({first_problem(error)})", value=str(path), remedy=remedy)


def first_problem(error: Exception) -> str:
    """Return in one short line what is wrong with a file's content."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))[:200]
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def remembered(
    path: Path, kind: TypeAdapter[_Content], make: Callable[[], _Content], say: Callable[[str], None]
) -> _Content:
    """Return what `path` holds; where it is missing, or damaged, which is said, it is made and stored first.

    Args:
        path: of a JSON file.
        kind: of its content.
        make: returns the content; it may take long.
        say: takes one sentence for the user.
    """
    try:
        return read_json(path, kind, "it is made anew")
    except StoreError as error:
        if path.exists():
            say(str(error))
    content = make()
    write_text_atomically(path, kind.dump_json(content).decode() + "\n")
    return content
