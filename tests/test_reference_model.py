"""The shipped weights still answer as claimed, on a fixed part of the holdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import experiments.reference_model
from experiments.reference_model.run import TARGETS, holdout, scores
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.statistics import mean_interval

RESULT = Path(experiments.reference_model.__file__).parent / "results" / "result.json"


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_the_shipped_weights_agree_with_the_claim(loaded: LoadedModel, task: str) -> None:
    claims = {claim["name"]: claim for claim in json.loads(RESULT.read_text())["claims"]}
    claim = claims[f"holdout accuracy, {task}"]
    assert claim["target"] == TARGETS[task]
    samples = holdout(task)[:200]
    values = scores(loaded, samples)
    # The claim is over the full holdout: these 200 samples must be compatible with it at 99.9 %.
    low, high = mean_interval(values, [sample.cluster for sample in samples], level=0.999)
    assert low - 1e-9 <= claim["value"] <= high + 1e-9
    assert claim["met"] == (claim["value"] >= TARGETS[task])
