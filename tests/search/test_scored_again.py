"""Stored answers under a metric's new version: scored again from the records, and the model is not run for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.search.test_former_records import as_before
from tests.search.test_identity import Quiet
from vtw_search.evaluation.metrics import METRICS, Metric
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import Splits, make_splits
from vtw_search.evaluation.tasks import digits, load_pools
from vtw_search.policies import Policy
from vtw_search.search.examination import Examination
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.limits import Limits
from vtw_search.search.racing import Racing
from vtw_search.search.study import Study
from vtw_search.search.study_settings import CONFIRMATION, SEARCH_SPLITS, StudySettings

LIMITS = Limits(0.01, "answer", "reference_candidate", accuracy_drop=0.5, confidence=0.95)
POLICIES = [Policy.keep_all(), Policy.withdraw(11), Policy.withdraw(1)]
SPLIT_SIZES = {"calibration": 2, "selection": 4, "confirmation": 2, "holdout": 2}


def former_score(answer: str, accepted: list[str], accept_empty: bool = False) -> float:
    """What was right before metrics had versions."""

    def normalized(text: str) -> str:
        return " ".join(text.lower().split()).strip(".,;:!?'\"` ")

    return float(normalized(answer) in {normalized(text) for text in accepted})


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Numbers, every second of which is only right as a decimal fraction: ".42" was the same as "42"."""
    samples = iter(digits.load_pool("holdout"))
    drawn = {name: [next(samples) for _ in range(count)] for name, count in SPLIT_SIZES.items()}
    return Splits({
        name: tuple(
            replace(each, answers=(f".{each.answers[0]}",)) if place % 2 else each for place, each in enumerate(own)
        )
        for name, own in drawn.items()
    })  # fmt: skip


@pytest.fixture
def make(loaded: LoadedModel, splits: Splits, tmp_path: Path) -> Callable[..., Study]:
    return lambda name="one": Study(loaded, splits, StudySettings("t", 8, 10, 0, tmp_path / name), Quiet())


@pytest.fixture
def scored_before(make: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Leave the stores of an earlier version, whose metrics had no version; returns the digests of its policies."""
    with monkeypatch.context() as then:
        then.setitem(METRICS, "exact_match", Metric(former_score, version=0, binary=True))
        before = make().measure(POLICIES).measurements
        make().measure_confirmation(POLICIES[1:])
        as_before(make(), SEARCH_SPLITS, CONFIRMATION)
    assert before[POLICIES[0].digest()].accuracy == 1
    return list(before)


@pytest.mark.parametrize("racing", [None, Racing(LIMITS, 0.95)], ids=["whole", "raced"])
def test_answers_of_before_are_scored_again_and_nothing_is_measured_again(
    make: Callable[..., Study],
    scored_before: list[str],
    passes: list[int],
    racing: Racing | None,
) -> None:
    passes.clear()
    found = make().measure(POLICIES, racing)
    assert passes == []
    fresh = make("another").measure(POLICIES, racing)
    assert found.measurements == fresh.measurements
    assert found.measurements[POLICIES[0].digest()].accuracy == 0.5
    assert found.samples["score"].equals(fresh.samples["score"])
    assert found.samples["answer"].equals(fresh.samples["answer"])
    stored = _lines(make())
    assert make().measure(POLICIES, racing).measurements == found.measurements
    assert _lines(make()) == stored, "and then it is there"


def test_times_of_before_stay(make: Callable[..., Study], scored_before: list[str]) -> None:
    [path] = make().settings.store.glob("*/measurements*.jsonl")
    timed = [{**json.loads(line), "latency_ms": 7.0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in timed))
    found = make().measure(POLICIES).measurements
    assert {(found[digest].latency_ms, found[digest].metrics["exact_match"]) for digest in scored_before} == {(7.0, 2)}


def test_a_test_by_other_scores_is_another_look(
    make: Callable[..., Study], scored_before: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, former = HoldoutLedger(tmp_path), Metric(former_score, version=0, binary=True)
    with monkeypatch.context() as then:
        then.setitem(METRICS, "exact_match", former)
        assert Examination(make(), ledger, "s").look_to_test(LIMITS, POLICIES[1:]) == 1
    with monkeypatch.context() as then:
        then.setitem(METRICS, "exact_match", replace(former, version=1))
        assert Examination(make(), ledger, "s").look_to_test(LIMITS, POLICIES[1:]) == 1, "the scores are the same"
    for _ in range(2):
        assert Examination(make(), ledger, "s").look_to_test(LIMITS, POLICIES[1:]) == 2


def _lines(study: Study) -> int:
    return sum(len(path.read_text().splitlines()) for path in study.settings.store.glob("*/measurements*.jsonl"))


def test_splits_are_those_of_before_metrics_had_versions(tmp_path: Path) -> None:
    """The digests name stores: they were written down when metrics had no version."""
    rows = [
        {
            "id": number, "images": [f"{number % 60}.ppm"], "prompt": "what?", "answers": ["", f".{number}", "猫。"],
            "metric": ("exact_match", "anls", "vqa_accuracy")[number % 3], "slices": {"kind": str(number % 2)},
        } for number in range(90)
    ]  # fmt: skip
    for number in range(60):
        (tmp_path / f"{number}.ppm").write_bytes(b"P6 2 2 255 " + bytes([number] * 12))
    (tmp_path / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = load_pools("jsonl", {"path": str(tmp_path / "task.jsonl")})
    pools = {"digits": load_pools("digits_read", {}), "own": own}
    found = {
        name: {split: make_splits(pool, 0, dict.fromkeys(SPLIT_SIZES, 20)).digest(split) for split in SPLIT_SIZES}
        for name, pool in pools.items()
    }
    assert found == {
        "digits": {
            "calibration": "2e0da6a1225f93ea", "selection": "1b2f9681b34ed78c",
            "confirmation": "b251a212ff31c857", "holdout": "083113f0b4461826",
        },
        "own": {
            "calibration": "30f9666aa814153a", "selection": "69722fd81478fe98",
            "confirmation": "cece098e262f242d", "holdout": "c5722f537c198385",
        },
    }  # fmt: skip
