"""The experiments that search run at a small size; most of their numbers mean nothing there."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.racing import run as racing
from experiments.sampler_quality import run as samplers
from experiments.sampler_quality import truth


def claims(folder: Path) -> dict[str, float]:
    content = json.loads((folder / "results/result.json").read_text())
    return {claim["name"]: claim["value"] for claim in content["claims"]}


@pytest.mark.slow
def test_samplers_on_a_truth_that_was_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every policy is scored, and samplers that may measure all of them find the whole front."""
    stored = tmp_path / "truth.parquet"
    monkeypatch.setattr(truth, "RECIPES", {"vtw": {}, "pyramid": {}})
    monkeypatch.setattr(truth, "SAMPLES", 6)
    monkeypatch.setattr(truth, "BATCH", 4)
    monkeypatch.setattr(truth, "PATH", stored)
    truth.main(tmp_path / "shards")
    rows = pd.read_parquet(stored)
    assert rows["samples"].tolist() == [6] * len(rows)
    assert rows["macs"].max() == rows["macs"][0], "keep-all comes first and costs most"

    monkeypatch.setattr(samplers, "PATH", stored)
    monkeypatch.setattr(samplers, "FOLDER", tmp_path)
    monkeypatch.setattr(samplers, "RUNS", 1)
    (tmp_path / "results").mkdir()
    whole = {name: samplers.Contestant(each.sampler, pool=20 if each.pool else 0, share=1.0)
             for name, each in samplers.CONTESTANTS.items() if name in ("default", "random")}  # fmt: skip
    monkeypatch.setattr(samplers, "CONTESTANTS", whole)
    samplers.main(tmp_path / "runs", list(whole))
    assert (tmp_path / "results" / "hypervolume.png").exists()
    found = claims(tmp_path)
    assert found["policies in the space"] == len(rows)
    assert 0 < found["default: evaluations to 95 %"] <= len(rows)


@pytest.mark.slow
def test_racing_and_the_search_that_scores_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "HERE", tmp_path)
    monkeypatch.setattr(racing, "CALIBRATION", 10)
    monkeypatch.setattr(racing, "SAMPLES", (
        "batch_size=5", "samples.selection=10", "samples.confirmation=60", "samples.holdout=10",
        "limits.kl_nats=0.02", "limits.kl_tail=0.2", "limits.accuracy_drop=0.1",
    ))  # fmt: skip
    monkeypatch.setattr(racing, "SPACE", (
        "+space.recipes.prune_withdraw.first=[2]", "+space.recipes.prune_withdraw.layer=[6,10]",
        "+space.recipes.prune_withdraw.keep=[0.5]", "+space.recipes.prune_withdraw.scorer=[uniform]",
        "+space.recipes.vtw={}",
    ))  # fmt: skip
    [task] = tasks = ["easy_vqa_shape"]
    racing.main(tmp_path / "runs", tasks)
    found = claims(tmp_path)
    assert found[f"{task}: policies"] == 14
    assert found[f"{task}: stopped early"] > 0
    assert found[f"{task}: branch work saved"] > 0
    assert found[f"{task}: same choice, front and finalists"] == 1
    # The second search stopped what no sample can bring back, and nothing else.
    measured = (tmp_path / "runs" / f"{task}-complete").rglob(f"records/{task}/measurements.jsonl")
    [rows] = [[json.loads(line) for line in path.read_text().splitlines()] for path in measured]
    assert {row["stopped"] for row in rows} <= {None, "beyond a limit whatever follows"}
