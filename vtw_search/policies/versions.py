"""What a stage looks like in each schema version of policy files.

Version 1 is closed. Version 2 names what `keep` is, because JSON does not tell 1 (one token) from 1.0 (every token); it
stays open for fields with defaults. A validation or dump gets the version as its context; without one both are read,
and the lowest is written that says all of a stage and can be read in one way.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

LATEST = 2
# In the order in which they are hashed.
STAGE_FIELDS_1 = ("options", "site", "layer", "operator", "keep", "scorer", "position")

Share = Annotated[StrictFloat, Field(gt=0, le=1)]
Count = Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
Keep = Share | Count | StrictStr
_KINDS: dict[str, TypeAdapter[Any]] = {
    "share": TypeAdapter(Share),
    "count": TypeAdapter(Count),
    "budget": TypeAdapter(StrictStr),
}
_KIND_OF = {float: "share", int: "count", str: "budget"}
KEEP_SCHEMA = {
    "anyOf": [
        *(
            {
                "type": "object",
                "properties": {kind: form.json_schema()},
                "required": [kind],
                "additionalProperties": False,
            }
            for kind, form in _KINDS.items()
        ),
        {"type": "null"},
    ]
}


def in_context(version: int) -> dict[str, Any]:
    """Return the context of a validation or a dump in one version."""
    return {"schema_version": version}


def version_of(context: Any) -> int | None:
    """Return the version that a validation or dump is in, or None."""
    version: int | None = (context or {}).get("schema_version")
    return version


def form_of(stage: Mapping[str, Any], defaults: Mapping[str, Any], asked: int | None) -> int:
    """Return the version that a stage is written in, given its fields and their defaults.

    Args:
        stage, defaults: its fields, and what they are by default.
        asked: version 1 is written where the stage has such a form; with None only where that can be read in one way.
    """
    if any(value != defaults[name] for name, value in stage.items() if name not in STAGE_FIELDS_1):
        return 2
    return asked or (2 if stage["keep"] == 1 else 1)


def plain(value: Any) -> Any:
    """Return a number of numpy's, or a member of an enumeration, as Python's own of its kind: 1 is not 1.0."""
    if isinstance(value, Enum):
        return value.value
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def read_keep(value: Any, version: int | None) -> Any:
    """Return `keep` as Python has it, a float, an int or a name; ValueError if it is not in the form of `version`."""
    value = plain(value)
    if isinstance(value, Mapping) and version != 1:
        return _of_kind(value)
    if isinstance(value, Mapping) or (version == 2 and value is not None):
        form = "a number or a name" if version == 1 else 'one of {"share": 0.5}, {"count": 64}, {"budget": "knee"}'
        raise ValueError(f"in schema_version {version} it must be {form}")
    return value


def write_keep(keep: float | int | str | None, version: int) -> Any:
    """Return `keep` in the form of a version."""
    if keep is None or version == 1:
        return keep
    return {_KIND_OF[type(keep)]: keep}


def _of_kind(form: Mapping[Any, Any]) -> Any:
    if len(form) != 1 or not set(form) <= set(_KINDS):
        raise ValueError(f"it must have one of {', '.join(_KINDS)} and nothing else")
    [(kind, value)] = form.items()
    if kind == "count" and type(value) is float and value.is_integer():
        value = int(value)  # a JSON tool may print 1 as 1.0; the other way round needs nothing
    try:
        return _KINDS[kind].validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{kind}: {error.errors()[0]['msg']}") from error
