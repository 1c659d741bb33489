"""Whole searches on the shipped model in which a limit on a slice decides the answer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.slow.searches import TASK, search
from vtw_search import load_policy
from vtw_search.driver import SearchResult
from vtw_search.errors import ConfigError
from vtw_search.policies import Policy

pytestmark = pytest.mark.slow
# Layer 9 loses some numbers of two and three digits, and hardly any of four. All layers of the space are within these.
LOOSE = (
    "limits.kl_nats=null", "limits.accuracy_drop=0.3", "space.first_layer=9", "samples.calibration=12",
    "samples.selection=120",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sliced")


def chosen(result: SearchResult) -> Policy:
    return result.studies[0].chosen.measurement.policy


def judged(result: SearchResult, layer: int) -> dict[str, bool]:
    [row] = [row for row in result.studies[0].rows if row.measurement.layer == layer]
    return {judgement.limit: judgement.holds for judgement in row.judgements}


@pytest.mark.parametrize("part", ["digits.2", "downsampling_fails.yes"])
def test_the_worst_slice_decides(folder: Path, part: str) -> None:
    assert chosen(search(folder, *LOOSE, "search=whole")) == Policy.withdraw(9)
    name = part.replace(".", "=")
    result = search(folder, *LOOSE, f"search={name.replace('=', '-')}", f"+limits.slices.{part}.accuracy_drop=0.1")
    assert chosen(result) == Policy.withdraw(10)
    assert judged(result, 9) == {"accuracy_drop": True, f"accuracy_drop[{name}]": False}
    limits = result.studies[0].holdout["limits"]
    assert set(limits) == {"accuracy_drop", f"accuracy_drop[{name}]"}
    assert load_policy(result.policy_file).tasks[TASK].measured["holdout"]["limits"] == limits
    slices = pd.read_parquet(result.folder / "records" / TASK / "samples.parquet")["slices"]
    assert slices.str.contains('"question_type": "what"').any()
    assert slices.str.contains("downsampling_fails").all() == (part == "downsampling_fails.yes")


TESTED = ("samples.confirmation=150", "limits.confidence=0.95", "noise.samples=6")


def test_the_test_of_a_slice_decides_and_is_named(folder: Path) -> None:
    whole = search(folder, *LOOSE, *TESTED, "search=tested")
    assert chosen(whole) == Policy.withdraw(9)
    assert set(whole.studies[0].policy_noise) == {"batch", "attention", "dtype"}
    entry = load_policy(whole.policy_file).tasks[TASK]
    assert entry.measured["policy_noise"] == whole.studies[0].policy_noise != entry.measured["noise_floor"]

    # On the samples of the search layer 9 is within this limit; the test does not let it pass.
    result = search(folder, *LOOSE, *TESTED, "search=tested-slice", "+limits.slices.digits.3.accuracy_drop=0.25")
    study = result.studies[0]
    assert judged(result, 9) == {"accuracy_drop": True, "accuracy_drop[digits=3]": True}
    assert chosen(result) == Policy.withdraw(10)
    assert "withdraw@9 failed: accuracy_drop[digits=3] 0." in study.verdict
    assert study.confirmation is not None
    assert {test.limit for test in study.confirmation.finalists[0].tests} == {
        "accuracy_drop", "accuracy_drop[digits=3]",
    }  # fmt: skip
    assert "withdraw@9 failed: accuracy_drop[digits=3] 0." in " ".join((folder / "output.txt").read_text().split())


def test_raced_or_not_the_measured_slice_gives_one_answer(folder: Path) -> None:
    asked = (*LOOSE, "space.first_layer=1", "+limits.slices.downsampling_fails.yes.accuracy_drop=0.1")
    plain, raced = search(folder, *asked, "search=plain"), search(folder, *asked, "search=raced", "racing.above=0")
    assert chosen(raced) == chosen(plain) == Policy.withdraw(10)
    reasons = [row.measurement.stopped or "" for row in raced.studies[0].rows]
    assert any("accuracy_drop[downsampling_fails=yes] surely > 0.1" in reason for reason in reasons)
    assert judged(raced, 10) == judged(plain, 10)


def test_a_measured_slice_that_is_too_small_to_test_is_refused_before_candidates_are_scored(folder: Path) -> None:
    asked = (*LOOSE, *TESTED, "search=small", "+limits.slices.downsampling_fails.no.accuracy_drop=0.1")
    with pytest.raises(ConfigError, match=r"downsampling_fails=no"):
        search(folder, *asked)
    assert not (folder / "runs" / "small" / "policy.json").exists()


def test_what_cannot_be_tested_on_one_task_is_told_before_another_one_is_searched(tmp_path: Path) -> None:
    asked = (*LOOSE, *TESTED, "samples.selection=60", f"task=[{TASK},easy_vqa_color]")
    with pytest.raises(ConfigError, match=r"a slice of easy_vqa_color must have samples.*downsampling_fails=yes"):
        search(tmp_path, *asked, "+limits.per_task.easy_vqa_color.slices.downsampling_fails.yes.accuracy_drop=0.001")
    assert not list((tmp_path / "runs").rglob("measurements*.jsonl"))
