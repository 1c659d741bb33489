"""The count of looks at a split: the same test again is none, and any other is one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vtw_search.lines import Lines
from vtw_search.policies import Policy
from vtw_search.search.examination import Examination
from vtw_search.search.ledger import HoldoutLedger, Look
from vtw_search.search.limits import Limits


def look(task: str = "a", policy: str = "withdraw@5", **others: Any) -> Look:
    return Look(search="s", task=task, samples="digest", policy=policy, **others)


def test_the_ledger_counts_per_task(tmp_path: Path) -> None:
    ledger = HoldoutLedger(tmp_path)
    assert ledger.count("a") == 0
    for task in "aba":
        ledger.look(look(task), [])
    assert (ledger.count("a"), ledger.count("b")) == (2, 1)
    assert ledger.count("a", "confirmation") == 0


def test_a_new_test_is_told_from_the_same_one(tmp_path: Path) -> None:
    ledger = HoldoutLedger(tmp_path)

    def place(records: str = "model-1", **changes: str) -> int:
        return ledger.test(look(split="confirmation", records=records, **{"under": "limits-1", **changes}), [records])

    assert [place(), place(under="limits-2"), place("model-2"), place(task="b"), place()] == [1, 2, 3, 1, 1]
    assert (ledger.count("a", "confirmation"), ledger.count("a")) == (3, 0)


def test_an_entry_that_names_no_model_is_a_look_and_may_be_of_another_one(tmp_path: Path) -> None:
    ledger = HoldoutLedger(tmp_path)
    old = {"time": "2026-01-01T00:00:00+00:00", "search": "s", "task": "a", "samples": "digest", "policy": "withdraw@5"}
    lines = [old, {**old, "split": "confirmation", "under": "limits-1"}]
    (tmp_path / "holdout_ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (ledger.count("a"), ledger.count("a", "confirmation")) == (1, 1)
    test = look(split="confirmation", under="limits-1", records="model-1")
    assert ledger.test(test, ["model-1"]) == 2
    ledger.look(look(records="model-1"), ["model-1", None])
    assert ledger.count("a") == 1
    ledger.look(look(records="model-1"), ["model-1"])
    assert ledger.count("a") == 2


def test_looks_at_the_same_time_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever checks first writes before the next one checks, however slow it is."""
    rows = Lines.rows

    def slow(self: Lines[Look]) -> Sequence[Look]:
        found = rows(self)
        time.sleep(0.1)
        return found

    monkeypatch.setattr(Lines, "rows", slow)
    test, ledger = look(split="confirmation", under="limits", records="model"), HoldoutLedger(tmp_path)
    threads = [threading.Thread(target=ledger.test, args=(test, ["model"])) for _ in range(3)]
    threads += [threading.Thread(target=ledger.look, args=(look(records="model"), ["model"])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ledger.count("a", "confirmation"), ledger.count("a")) == (1, 1)


def test_the_same_finalists_of_another_model_are_another_look(tmp_path: Path) -> None:
    """Only a test that is repeated in every part gives the answer that is known."""
    asked = Limits(0.01, "answer", "reference_candidate", confidence=0.95)

    def looks(limits: Limits, **model: str) -> int:
        study = SimpleNamespace(
            settings=SimpleNamespace(task="a"), splits=SimpleNamespace(digest=lambda split: f"{split} samples"),
            names_of_records=lambda *splits: [str({"model": "m", "dtype": "float32", **model})],
        )  # fmt: skip
        examination = Examination(cast(Any, study), HoldoutLedger(tmp_path), "s")
        return examination.look_to_test(limits, [Policy.withdraw(5)])

    assert [looks(asked), looks(asked)] == [1, 1]
    assert looks(asked, model="another") == 2
    assert looks(asked, dtype="bfloat16") == 3
    assert looks(replace(asked, kl_nats=0.02)) == 4
    # A search that goes on reports what it reported.
    assert [looks(asked), looks(asked, dtype="bfloat16")] == [1, 3]
    HoldoutLedger(tmp_path).look(look(split="confirmation").model_copy(update={"samples": "other samples"}), [])
    assert looks(replace(asked, kl_nats=0.03)) == 5
