"""How often splits that may be looked at once were looked at. A holdout that is looked at often is no holdout."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from vtw_search.files import write_text_atomically


class HoldoutLedger:
    """Counts the evaluations of holdout and confirmation splits over all searches of a `runs` folder."""

    def __init__(self, runs: Path) -> None:
        self.path = runs / "holdout_ledger.jsonl"

    def add(
        self, search: str, task: str, digest: str, policy: str, split: str = "holdout", under: str | None = None,
        records: str | None = None,
    ) -> None:  # fmt: skip
        """Note that a split of `task` is about to be looked at.

        Args:
            search, task, policy: by whom, and what is looked at.
            digest: identifies the samples.
            split: its name.
            under, records: by which limits it is tested, and on which records, as for `tested`; None is not noted.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"time": now, "search": search, "task": task, "split": split, "samples": digest, "policy": policy}
        test = {"under": under, "records": records}
        entry |= {name: value for name, value in test.items() if value is not None}
        with FileLock(self.path.with_suffix(".lock")):
            write_text_atomically(self.path, "".join(json.dumps(row) + "\n" for row in [*self._entries(), entry]))

    def tested(self, task: str, digest: str, policy: str, *, under: str, records: str) -> bool:
        """Whether this very test was noted before, by whichever search: made again, it gives the same answer.

        Entries from before `records` was noted count as looks, but may have been another model's test.

        Args:
            task, digest, policy: as for `add`.
            under: identifies the limits.
            records: identifies what is measured: by which model, how it computes, and where.
        """
        wanted = {"task": task, "samples": digest, "policy": policy, "under": under, "records": records}
        return any(wanted.items() <= row.items() for row in self._entries())

    def place(self, task: str, digest: str, policy: str, *, under: str, records: str) -> int:
        """Return which test of these samples this very test was, from 1; it was noted before.

        Others are those under other limits, of other policies or by other models: each was one more chance to pass.

        Args:
            task, digest, policy, under, records: as for `tested`.
        """
        where = {"task": task, "split": "confirmation", "samples": digest}
        tests = [row for row in self._entries() if where.items() <= row.items()]
        wanted = {"policy": policy, "under": under, "records": records}
        return next(place for place, row in enumerate(tests, start=1) if wanted.items() <= row.items())

    def seen(self, task: str, digest: str, policy: str, *, records: str) -> bool:
        """Whether a look at these very records of the holdout was noted before, by whichever search.

        Args:
            task, digest, policy, records: as for `tested`. Entries from before `records` was noted are of any.
        """
        wanted = {"task": task, "split": "holdout", "samples": digest, "policy": policy, "records": records}
        return any(wanted.items() <= {"split": "holdout", "records": records, **row}.items() for row in self._entries())

    def count(self, task: str, split: str = "holdout") -> int:
        """Return how often a split of `task` was looked at, whatever part of it and by whichever search."""
        # Entries of before there were tests name the holdout alone.
        return sum(row["task"] == task and row.get("split", "holdout") == split for row in self._entries())

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
