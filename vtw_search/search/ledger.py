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
        self, search: str, task: str, digest: str, policy: str, split: str = "holdout", under: str | None = None
    ) -> None:
        """Note that a split of `task` is about to be looked at.

        Args:
            search, task, policy: by whom, and what is looked at.
            digest: identifies the samples.
            split: its name.
            under: identifies the limits that are tested; None where none are.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"time": now, "search": search, "task": task, "split": split, "samples": digest, "policy": policy}
        entry |= {} if under is None else {"under": under}
        with FileLock(self.path.with_suffix(".lock")):
            write_text_atomically(self.path, "".join(json.dumps(row) + "\n" for row in [*self._entries(), entry]))

    def tested(self, task: str, digest: str, policy: str, under: str) -> bool:
        """Whether this very test was noted before, by whichever search: made again, it gives the same answer."""
        wanted = {"task": task, "samples": digest, "policy": policy, "under": under}
        return any(wanted.items() <= row.items() for row in self._entries())

    def count(self, task: str, split: str = "holdout") -> int:
        """Return how often a split of `task` was looked at, whatever part of it and by whichever search."""
        # Entries of before there were tests name the holdout alone.
        return sum(row["task"] == task and row.get("split", "holdout") == split for row in self._entries())

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
