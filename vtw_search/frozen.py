"""Data that cannot be changed, all the way down, so that it can be a key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

MAX_DEPTH = 32
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Frozen(dict[_Key, _Value]):
    """A dictionary that is never changed, equal to one of the same items. It hashes if its values do."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> Any:
        # An ordinary dictionary's copy and pickle set the items one by one.
        return type(self), (dict(self),)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, handler.generate_schema(dict))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a policy's data cannot be changed; build a new one")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


def frozen_json(value: Any, depth: int = 0) -> Any:
    """Return a JSON value with frozen mappings, and tuples for its lists.

    What JSON cannot say becomes what JSON says in its place, so that a value equals the one that is read again: a
    number that is not finite is None, half a surrogate pair (part of a file's name that is no text) is written out.

    Raises:
        ValueError: it is deeper than `MAX_DEPTH`, or holds something that JSON has no value for.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"may be nested {MAX_DEPTH} deep at most")
    if isinstance(value, Mapping):
        return Frozen((_text(key), frozen_json(part, depth + 1)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(frozen_json(part, depth + 1) for part in value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"must be a JSON value, not {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    return str(value).encode(errors="backslashreplace").decode()


FrozenMap = Annotated[Mapping[_Key, _Value], AfterValidator(Frozen)]
FrozenJson = Annotated[Mapping[str, Any], AfterValidator(frozen_json)]


class FrozenModel(BaseModel):
    """A record without unknown fields that is never changed; copies of it are checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        for value in self.__dict__.values():
            if isinstance(value, str):
                value.encode()  # half a surrogate pair is no text; its error is a ValueError
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced; they are checked, and a deep copy is the same as a shallow one."""
        return self.model_validate({**dict(self), **(update or {})})
