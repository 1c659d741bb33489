"""How often splits that may be looked at once were looked at. A holdout that is looked at often is no holdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from vtw_search.lines import Lines


class Look(BaseModel):
    """One look at a split, noted before it happens.

    Attributes:
        time, search: when, and by which search.
        task, samples: whose split; a digest of its samples.
        policy: what is looked at.
        split: its name. Entries of before there were tests name none; they are of the holdout.
        under: identifies the limits that a test is made under.
        records: identifies what is measured: by which model, how it computes, and where; None in old entries.
    """

    model_config = ConfigDict(frozen=True)

    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    search: str
    task: str
    split: str = "holdout"
    samples: str
    policy: str
    under: str | None = None
    records: str | None = None

    def is_of(self, other: Look) -> bool:
        """Whether both are of the same policy on the same samples, whenever and by whichever search."""
        return (self.task, self.split, self.samples, self.policy) == (
            other.task, other.split, other.samples, other.policy,
        )  # fmt: skip


class HoldoutLedger:
    """Counts the evaluations of holdout and confirmation splits over all searches of a `runs` folder."""

    def __init__(self, runs: Path) -> None:
        remedy = "correct or remove that line; each is one look at a split"
        self._looks = Lines(runs / "holdout_ledger.jsonl", TypeAdapter(Look), remedy)

    def look(self, look: Look, names: Sequence[str | None]) -> None:
        """Note a look, unless one at these very records was noted before, by whichever search.

        Args:
            look: under the first of `names`.
            names: the names that its records may have been noted under; None is that of an entry without one.
        """
        self._looks.append_unless(_has(lambda row: row.is_of(look) and row.records in names), look)

    def test(self, look: Look, names: Sequence[str]) -> int:
        """Note a test, unless this very one was noted before, and return which test of these samples it is, from 1.

        Others are those under other limits, of other policies or by other models: each was one more chance to pass.

        Args:
            look: the test, under the first of `names`.
            names: the names that its records may have been noted under. An entry without one is another test.
        """

        def is_it(row: Look) -> bool:
            return row.is_of(look) and row.under == look.under and row.records in names

        self._looks.append_unless(_has(is_it), look)
        where = (look.task, look.split, look.samples)
        tests = [row for row in self._looks.rows() if (row.task, row.split, row.samples) == where]
        return next(place for place, row in enumerate(tests, start=1) if is_it(row))

    def count(self, task: str, split: str = "holdout") -> int:
        """Return how often a split of `task` was looked at, whatever part of it and by whichever search."""
        return sum(row.task == task and row.split == split for row in self._looks.rows())


def _has(is_it: Callable[[Look], bool]) -> Callable[[Sequence[Look]], bool]:
    return lambda rows: any(map(is_it, rows))
