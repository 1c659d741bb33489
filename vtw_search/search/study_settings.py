"""What a study is told, and whom it tells how it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from profilers.protocol import MAX_SECONDS
from vtw_search.policies import Policy

# Splits whose records are stored together, by what they are for.
SEARCH_SPLITS = ("calibration", "selection")
CONFIRMATION = ("confirmation",)
HOLDOUT = ("holdout",)


class Progress(Protocol):
    """Where a study reports what it is doing."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a piece of work."""

    def advance(self, units: int = 1) -> None:
        """Report finished units."""

    def note(self, text: str) -> None:
        """Say something once."""


@dataclass(frozen=True)
class StudySettings:
    """What a study depends on besides its model and samples.

    Attributes:
        task: its name.
        max_new_tokens: bound on the length of an answer.
        batch_size: samples per batch; part of the identity, since it changes floating-point results.
        repeats: timed rounds A B B A; 0 for none.
        max_seconds: per candidate, after which times that have not settled are waited for no longer; no part of the
            identity, since it changes no time that has settled.
        store: folder that holds the records of all searches.
        timeout_s: of one candidate on one batch, or None; no part of the identity, since it changes no number.
        time_all: whether every candidate is timed, which limits and objectives on time need.
        pooled: the policy whose failures are the slice `downsampling_fails`; None where no limit is on that.
    """

    task: str
    max_new_tokens: int
    batch_size: int
    repeats: int
    store: Path
    timeout_s: float | None = None
    time_all: bool = False
    pooled: Policy | None = None
    max_seconds: float = MAX_SECONDS
