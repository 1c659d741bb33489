"""How often each holdout split was looked at. A holdout that is looked at often is no holdout."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from vtw_search.files import write_text_atomically


class HoldoutLedger:
    """Counts the evaluations of holdout splits over all searches of a `runs` folder."""

    def __init__(self, runs: Path) -> None:
        self.path = runs / "holdout_ledger.jsonl"

    def add(self, search: str, task: str, digest: str, policy: str) -> None:
        """Note that the holdout of `task` is about to be looked at; `digest` identifies the samples."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"time": now, "search": search, "task": task, "holdout": digest, "policy": policy}
        with FileLock(self.path.with_suffix(".lock")):
            write_text_atomically(self.path, "".join(json.dumps(row) + "\n" for row in [*self._entries(), entry]))

    def count(self, task: str) -> int:
        """Return how often the holdout of `task` was looked at, whatever part of it and by whichever search."""
        return sum(row["task"] == task for row in self._entries())

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
