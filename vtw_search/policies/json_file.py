"""Reading JSON that anybody may have written: bounded, complete, and with one reading."""

from __future__ import annotations

import codecs
import json
import os
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from vtw_search.errors import PolicyFileError, cut, shown

MAX_BYTES = 16 * 2**20
_LONGEST = 300


def read_json(path: str | os.PathLike[str], what: str, remedy: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: of the file.
        what: is to be read, for messages; such as "policy file".
        remedy: what to do about one that is truncated or was edited.

    Raises:
        PolicyFileError: the file cannot be read, is larger than `MAX_BYTES`, is not JSON (NaN is not), is nested more
            than 200 deep, or names a key twice.
    """
    raw = _read(path, what).removeprefix(codecs.BOM_UTF8)
    try:
        # This parser has a limit on the depth and refuses NaN and half a surrogate pair; the other one sees pairs.
        from_json(raw, allow_inf_nan=False)
        return json.loads(raw.decode(), object_pairs_hook=once_each)
    except (ValueError, RecursionError) as error:
        text = f"it is truncated or was edited ({cut(str(error), _LONGEST)}); {remedy}"
        raise PolicyFileError(f"a {what} must be complete JSON", value=str(path), remedy=text) from error


def first_problem(error: ValidationError) -> str:
    """Return where the first problem is and what it is, in one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{cut(place, _LONGEST)}: {cut(message, _LONGEST)} ({error.error_count()} problem(s) in all)"


def _read(path: str | os.PathLike[str], what: str) -> bytes:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123  a path with a NUL byte has to end in the same error
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise PolicyFileError(f"a {what} must be readable", value=str(path), remedy=str(error)) from error
    if len(raw) > MAX_BYTES:
        remedy = "give the path of the file itself; a search writes some kilobytes"
        raise PolicyFileError(f"a {what} has at most {MAX_BYTES} bytes", value=str(path), remedy=remedy)
    return raw


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object that JSON's pairs make; ValueError where a name stands twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} stands in one object twice")
    return content
