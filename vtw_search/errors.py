"""Typed errors. Each message states the rule that was broken, the value that broke it and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

# Characters of a message's parts that are shown: a value may be a whole file.
_MOST_RULE, _MOST_VALUE, _MOST_REMEDY = 800, 200, 1200


class VtwError(Exception):
    """Base of every error that the user can act on. Commands print it on one line and exit with `exit_code`."""

    exit_code = 2

    def __init__(self, rule: str, *, value: object = None, remedy: str = "") -> None:
        self.rule, self.value, self.remedy = rule, value, remedy
        broken = cut(rule, _MOST_RULE)
        parts = [broken if value is None else f"{broken}, got {shown(value)}", cut(remedy, _MOST_REMEDY)]
        super().__init__("; ".join(part for part in parts if part))

    def at(self, place: str) -> Self:
        """Return the same error with where it happened before its rule."""
        return type(self)(f"{place}: {self.rule}", value=self.value, remedy=self.remedy)


class PolicyError(VtwError):
    """A policy breaks its own rules or does not fit the model."""


class PolicyFileError(VtwError):
    """A policy file cannot be read, or is not for this model or this version."""


class ModelError(VtwError):
    """A model cannot be loaded, or its family is not supported."""


class RuntimeUseError(VtwError):
    """The runtime was asked for something that it would have to guess."""


class TaskError(VtwError):
    """A task or one of its samples is not usable."""


class ConfigError(VtwError):
    """The configuration is not valid."""


class EvidenceError(VtwError):
    """Numbers that a limit is judged on are missing, not finite or impossible."""


class StoreError(VtwError):
    """Records or results cannot be read or written."""


class InUseError(VtwError):
    """Another process works on what was asked for."""

    exit_code = 4


class OutOfReachError(VtwError):
    """No candidate, keep-all included, meets a limit on a cost."""

    exit_code = 3


class MissingExtraError(VtwError):
    """An optional dependency of the command is not installed."""


class UnknownNameError(VtwError):
    """A name was looked up and does not exist."""


class UnknownTaskWarning(UserWarning):
    """A policy set has no entry for the task, so its default is used."""


class DataWarning(UserWarning):
    """Something about a task's data that a user should know before believing numbers of it."""


class UnchosenTaskWarning(UserWarning):
    """A thread runs the model under a policy file of several tasks without having chosen one."""


def cut(text: str, most: int) -> str:
    """Return a text as part of a message of one line: its beginning and its length if it is longer than `most`."""
    line = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[:most])
    return line if len(text) <= most else f"{line}... ({len(text):,} characters)"


def shown(value: object, most: int = _MOST_VALUE) -> str:
    """Return how a value is shown in a message, on one line, cut if it is long."""
    try:
        return cut(repr(value), most)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply to show"


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return a hint such as "did you mean 'a'? known: a, b, c"."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    guess = "did you mean " + " or ".join(repr(match) for match in close) + "? " if close else ""
    return f"{guess}known: {', '.join(names) if names else 'none'}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error of a failed look-up, with near matches and the list of what exists."""
    return UnknownNameError(f"unknown {kind} {shown(name)}", remedy=near_matches(name, known))
