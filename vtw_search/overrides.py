"""Overrides of the command line: read, written so that nothing in a value is taken for grammar, refused with a hint."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException
from pydantic import BaseModel

from vtw_search.errors import ConfigError
from vtw_search.files import with_home

# What a search is told beside the settings of its model: groups, and what the group `task` reads.
_OF_A_SEARCH = ("task", "task.path", "task.name", "task.max_new_tokens", "experiment")
_TEXTS_OF_A_SEARCH = ("task.path", "task.name")
_FORM = "overrides look like group=option or key.sub=value"


def text_setting(key: str, text: str) -> str:
    """Return the override that sets `key` to `text`, whatever is in it, such as `runs="my runs"`."""
    # Not an interpolation; backslashes in front of it would be read as escapes.
    literal = re.sub(r"(\\*)\$\{", lambda found: rf"{found[1] * 2}\${{", text)
    return f"{key}={QuotedString(literal, Quote.double).with_quotes()}"


def in_a_shell(override: str) -> str:
    """Return how an override whose value is one text is typed, such as `'task.path="my set, v2.jsonl"'`."""
    key, _, value = override.partition("=")
    return shlex.quote(text_setting(key, value))


def home_expanded(argument: str) -> str:
    """Return `runs=~/x` with the user's home, as a shell would have done for `~/x` alone."""
    before, sign, value = argument.partition("=")
    return argument if not value.startswith("~") else f"{before}{sign}{with_home(value)}"


def parsed(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides; ConfigError says how one that cannot be read is written."""
    return [_parsed(override) for override in overrides]


def _parsed(override: str) -> Override:
    try:
        [found] = OverridesParser.create().parse_overrides([override])
    except OverrideParseException as error:
        raise ConfigError("an override must be readable", value=override, remedy=_how_to_write(override)) from error
    if not found.key_or_group:
        raise ConfigError("an override must name a setting", value=override, remedy=_FORM)
    return found


def _how_to_write(override: str) -> str:
    key, _, value = override.partition("=")
    if not re.fullmatch(r"[+~]*[\w@./-]+", key) or not value:
        return _FORM
    lists = "quote brackets in a shell: 'task=[a,b]'; " if value[0] in "[{" else ""
    return f"{lists}a text with spaces or other signs has quotes of its own: {in_a_shell(override)}"


def check_values(overrides: Sequence[Override], model: type[BaseModel]) -> None:
    """Refuse several values where one search takes one, and what is no text where a setting of `model` is a text.

    Raises:
        ConfigError: with the override as it was probably meant.
    """
    texts = {*_text_settings(model), *_TEXTS_OF_A_SEARCH}
    for item in overrides:
        override, key, value = str(item.input_line), item.key_or_group, item.value()
        if item.is_sweep_override():
            text = f"write it as one text, {in_a_shell(override)}, or " if key in texts else ""
            remedy = f"{text}put a list in brackets, or search each with -m"
            raise ConfigError("a setting has one value", value=override, remedy=remedy)
        if key in texts and not isinstance(value, str | QuotedString | None):
            raise ConfigError(f"{key} must be a text", value=override, remedy=f"write {in_a_shell(override)}")
        option = str | dict | QuotedString if key == "task" else str | dict | QuotedString | None
        if key in _groups() and not all(isinstance(name, option) for name in _each(value)):
            raise ConfigError("a group is given the name of an option", value=override, remedy=_FORM)


def _groups() -> set[str]:
    return {path.name for path in resources.files("conf").iterdir() if path.is_dir()}


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if (nested := _group(field.annotation)) is not None:
            yield from _text_settings(nested, f"{prefix}{name}.")
        elif str in _kinds(field.annotation):
            yield f"{prefix}{name}"


def _kinds(annotation: Any) -> set[Any]:
    """Return the types of a union, without what is asked of them."""
    if hasattr(annotation, "__metadata__"):
        return _kinds(annotation.__origin__)
    if get_args(annotation) and type(None) in get_args(annotation):
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation}


def _group(annotation: Any) -> type[BaseModel] | None:
    found = [kind for kind in _kinds(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return found[0] if found else None


def unknown_setting(place: str, model: type[BaseModel]) -> str:
    """Return what to say of a setting that `model` has not: near matches, or what there is where it was looked for."""
    known = [*_settings(model), *(_OF_A_SEARCH if "tasks" in model.model_fields else ())]
    group, _, _ = place.rpartition(".")
    beside = _names_in(model, group.split(".")) if group else []
    names = [f"{group}.{name}" for name in beside] or list(model.model_fields)
    close = difflib.get_close_matches(place, dict.fromkeys([*names, *known]), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
    return f"unknown option {place!r}; {hint}"


def is_setting(place: str, model: type[BaseModel]) -> bool:
    """Whether `model` has a setting or a group of that name."""
    return place in _settings(model)


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if (nested := _group(field.annotation)) is not None:
            yield from _settings(nested, f"{prefix}{name}.")


def _names_in(model: type[BaseModel], parts: Sequence[str]) -> list[str]:
    """Return the settings of the group at `parts`, which may be an entry of a mapping; none where there is no group."""
    if not parts:
        return list(model.model_fields)
    field = model.model_fields.get(parts[0])
    entry = None if field is None else _entry(field.annotation)
    nested, left = (_group(field.annotation), parts[1:]) if field is not None and entry is None else (entry, parts[2:])
    return [] if nested is None else _names_in(nested, left)


def _entry(annotation: Any) -> type[BaseModel] | None:
    """Return what is in a mapping of groups."""
    [kind, *others] = _kinds(annotation)
    return _group(get_args(kind)[1]) if not others and get_origin(kind) is dict else None
