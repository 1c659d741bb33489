"""The count of looks at a split: the same test again is none, and any other is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from vtw_search.policies import Policy
from vtw_search.search.examination import Examination
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.limits import Limits


def test_the_ledger_counts_per_task(tmp_path: Path) -> None:
    ledger = HoldoutLedger(tmp_path)
    assert ledger.count("a") == 0
    for task in "aba":
        ledger.add("s", task, "digest", "keep-all")
    assert (ledger.count("a"), ledger.count("b")) == (2, 1)
    assert ledger.count("a", "confirmation") == 0


def test_the_ledger_tells_a_new_test_from_the_same_one(tmp_path: Path) -> None:
    ledger = HoldoutLedger(tmp_path)
    same = {"task": "a", "digest": "digest", "policy": "withdraw@5", "under": "limits-1", "records": "model-1"}
    ledger.add("s", split="confirmation", **same)
    assert ledger.tested(**same)
    for other in ({"task": "b"}, {"under": "limits-2"}, {"records": "model-2"}):
        assert not ledger.tested(**{**same, **other})
    assert (ledger.count("a", "confirmation"), ledger.count("a")) == (1, 0)


def test_an_entry_that_names_no_model_is_a_look_and_may_be_of_another_one(tmp_path: Path) -> None:
    ledger = HoldoutLedger(tmp_path)
    ledger.add("s", "a", "digest", "withdraw@5", "confirmation", under="limits-1")
    assert ledger.count("a", "confirmation") == 1
    assert not ledger.tested("a", "digest", "withdraw@5", under="limits-1", records="model-1")


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
    HoldoutLedger(tmp_path).add("s", "a", "other samples", "withdraw@5", "confirmation", under="l", records="r")
    assert looks(replace(asked, kl_nats=0.03)) == 5
