"""Whole searches that race, on the shipped model: the same answer from fewer samples, and limits that change later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from vtw_search.config import load_config
from vtw_search.driver import SearchResult, run_search
from vtw_search.engine import OnePassEvaluator
from vtw_search.policies import Policy
from vtw_search.records import SampleRecord

pytestmark = pytest.mark.slow

SMALL = (
    "task=easy_vqa_shape", "tracking=none", "profile=macs", "batch_size=5", "model.device=cpu",
    "samples.calibration=20", "samples.selection=20", "samples.confirmation=0", "samples.holdout=20",
    "limits.confidence=null", "noise.samples=0", "racing.above=0", "search=raced",
)  # fmt: skip
TIGHT, LOOSE = "limits.kl_nats=0.02", "limits.kl_nats=100"


def search(folder: Path, *overrides: str) -> tuple[SearchResult, str]:
    """A search and what it printed."""
    path = folder / "output.txt"
    with path.open("w") as stream:
        result = run_search(load_config(*SMALL, f"runs={folder / 'runs'}", *overrides), Console(file=stream, width=200))
    return result, path.read_text()


def records_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "runs/raced/records/easy_vqa_shape/samples.parquet")


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult, str]:
    folder = tmp_path_factory.mktemp("raced")
    return (folder, *search(folder, TIGHT))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult, str]:
    folder = tmp_path_factory.mktemp("complete")
    return (folder, *search(folder, TIGHT, "racing.above=null"))


def test_racing_gives_the_same_answer_from_fewer_samples(
    raced: tuple[Path, SearchResult, str], complete: tuple[Path, SearchResult, str]
) -> None:
    [study], [whole] = raced[1].studies, complete[1].studies
    stopped = [row for row in study.rows if row.measurement.stopped]
    assert stopped
    assert study.chosen.measurement.policy == whole.chosen.measurement.policy
    assert study.racing is not None
    assert study.racing.stopped == len(stopped)
    assert 0.1 < study.racing.work_saved < study.racing.branch_work_saved < 0.7
    assert whole.racing is None
    for row, other in zip(study.rows, whole.rows, strict=True):
        assert row.feasible == other.feasible
        assert row.measurement.stopped or row.measurement == other.measurement
    left = records_of(raced[0]).merge(records_of(complete[0]), on=["policy", "split", "sample"], validate="1:1")
    assert len(left) == len(records_of(raced[0])) < len(records_of(complete[0]))
    assert (left["kl_answer_nats_x"] - left["kl_answer_nats_y"]).abs().max() < 1e-4
    assert left["answer_x"].equals(left["answer_y"])


def test_what_was_raced_out_says_so_everywhere(raced: tuple[Path, SearchResult, str]) -> None:
    folder, result, output = raced
    [study] = result.studies
    row = next(row for row in study.rows if row.measurement.stopped)
    assert row.status.startswith("raced out after 5 + 5 samples: kl_nats surely > 0.02")
    assert not row.feasible
    assert not row.on_front
    measured = folder / "runs/raced/records/easy_vqa_shape/measurements.jsonl"
    exported = {Policy(**line["policy"]): line for line in map(json.loads, measured.read_text().splitlines())}
    assert exported[row.measurement.policy]["stopped"]
    assert exported[row.measurement.policy]["selection_samples"] == 5
    assert f"racing stopped {study.racing.stopped} of 12 candidates early" in output  # type: ignore[union-attr]
    assert "raced out" in output
    assert "raced out after 5 + 5 samples" in (folder / "runs/raced/report/easy_vqa_shape/front.csv").read_text()
    assert "raced out after 5 + 5 samples" in (folder / "runs/raced/report/easy_vqa_shape/front.html").read_text()
    assert result.policies.tasks["easy_vqa_shape"].measured["racing"]["stopped"] == study.racing.stopped  # type: ignore[union-attr]


def test_a_search_that_resumes_races_as_before_whatever_others_have_measured_since(tmp_path: Path) -> None:
    before, _ = search(tmp_path, TIGHT)
    frame = records_of(tmp_path)
    whole, _ = search(tmp_path, TIGHT, "racing.above=null", "search=whole")
    assert all(row.measurement.complete for row in whole.studies[0].rows)
    again, output = search(tmp_path, TIGHT)
    assert again.studies[0].rows == before.studies[0].rows
    assert again.studies[0].racing == before.studies[0].racing
    assert "stopped early by racing before" not in output
    pd.testing.assert_frame_equal(records_of(tmp_path), frame)


def test_looser_limits_name_those_they_need_and_score_only_what_is_missing(
    raced: tuple[Path, SearchResult, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before, _ = raced
    known = {tuple(key) for key in records_of(folder)[["policy", "split", "sample"]].to_numpy()}
    scored: list[tuple[str, str, str]] = []
    original = OnePassEvaluator.records_of

    def noted(self: OnePassEvaluator, policies: Sequence[Policy]) -> dict[Policy, list[SampleRecord]]:
        found = original(self, policies)
        scored.extend((each.policy, each.split, each.sample) for records in found.values() for each in records)
        return found

    monkeypatch.setattr(OnePassEvaluator, "records_of", noted)
    again, output = search(folder, TIGHT)
    assert not scored
    assert again.studies[0].rows == before.studies[0].rows
    assert "stopped early by racing before" not in output
    after, output = search(folder, LOOSE, "limits.kl_tail=null", "limits.accuracy_drop=1")
    stopped = {row.measurement.policy: row for row in before.studies[0].rows if row.measurement.stopped}
    back = [row for row in after.studies[0].rows if row.measurement.policy in stopped and row.measurement.complete]
    assert back
    assert f"now scored on their missing samples: {len(back)}, " in output
    assert all(row.measurement.policy.label() in output for row in back)
    searched = [key for key in scored if key[1] in ("calibration", "selection")]
    own = {row.measurement.policy.digest() for row in back}
    assert {key for key in searched if key[0] in own}
    assert not set(searched) & known
    assert len(searched) == len(set(searched))


def test_a_sampler_races_too(tmp_path: Path) -> None:
    result, output = search(
        tmp_path, TIGHT, "space=prune_withdraw", "sampler=tpe", "sampler.trials=24", "sampler.batch=8"
    )
    [study] = result.studies
    assert study.racing is not None
    assert len(study.rows) == study.racing.candidates == 24
    assert study.racing.stopped > 0
    assert study.chosen.measurement.complete
    assert "racing stopped" in output
