"""Whole searches on the shipped model: answers, resume after kill -9, sharing, sweeps, trackers that are down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.slow.searches import SMALL, command, rows_of, search, small_config
from vtw_search import apply_policy, load_policy
from vtw_search.driver import SearchResult
from vtw_search.evaluation.model import load_model
from vtw_search.evaluation.splits import make_splits
from vtw_search.evaluation.tasks import load_pools


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, search(folder, "search=plain")


def test_a_search_leaves_everything_that_it_promises(finished: tuple[Path, SearchResult]) -> None:
    _, result = finished
    names = {str(path.relative_to(result.folder)) for path in result.folder.rglob("*") if path.is_file()}
    task = "digits_read"
    assert {
        "config.yaml", "policy.json", "optuna.db", "report/curves.png", f"report/{task}/front.csv",
        f"report/{task}/front.html", f"report/{task}/front.png", f"report/{task}/curves.png",
        f"records/{task}/samples.parquet", f"records/{task}/measurements.jsonl",
    } <= names  # fmt: skip
    [study] = result.studies
    assert [row.measurement.layer for row in study.rows] == [12, *range(1, 12)]
    assert study.rows[0].measurement.kl_answer_nats == 0
    assert all(
        low.measurement.macs < high.measurement.macs for low, high in zip(study.rows[1:], study.rows[2:], strict=False)
    )
    entry = load_policy(result.policy_file).tasks[task]
    assert entry.policy == study.chosen.measurement.policy
    assert entry.measured["holdout"]["evaluations_of_this_holdout"] == 1


def test_the_same_search_again_measures_nothing(
    finished: tuple[Path, SearchResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = finished

    def never(*_: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("vtw_search.search.study.OnePassEvaluator", never)
    monkeypatch.setattr("vtw_search.search.study.Profiler", never)
    again = search(folder, "search=plain")
    assert again.studies[0].rows == result.studies[0].rows
    assert again.studies[0].holdout == result.studies[0].holdout


def test_limits_that_exclude_everything_give_keep_all_and_name_the_limit(finished: tuple[Path, SearchResult]) -> None:
    folder, _ = finished
    result = search(folder, "search=strict", "limits.kl_nats=0", "limits.accuracy_drop=null")
    [study] = result.studies
    assert study.chosen.measurement.policy.is_keep_all
    assert "no other policy meets the limits; closest is withdraw@" in study.verdict
    assert "blocked by kl_nats" in study.verdict
    assert load_policy(result.policy_file).tasks["digits_read"].policy.is_keep_all


def test_searches_that_differ_in_limits_share_the_records(finished: tuple[Path, SearchResult]) -> None:
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs" / "_records").rglob("samples-*")}
    search(folder, "search=shared", "limits=vtw_paper", "limits.kl_samples=10")
    calibration = {path for path in before if "samples-" in path.name}
    assert all(path.stat().st_mtime_ns == before[path] for path in calibration)
    assert_same_candidates(rows_of(folder, "plain")[0], rows_of(folder, "shared")[0])


def assert_same_candidates(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Other limits may choose another policy, which has other baselines; the candidates are the same."""
    common = set(first["policy"]) & set(second["policy"])
    assert len(common) >= 12
    first, second = (each[each["policy"].isin(common)].reset_index(drop=True) for each in (first, second))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.slow
def test_the_exported_file_gives_the_answers_of_the_search_in_a_fresh_process(
    finished: tuple[Path, SearchResult], tmp_path: Path
) -> None:
    _, result = finished
    code = """
import sys
from vtw_search.evaluation.tasks import load_pools
from vtw_search.evaluation.model import REFERENCE_MODEL
from transformers import AutoModelForImageTextToText, AutoProcessor
from vtw_search import Policy, PolicySet, apply_policy, load_policy
import json, torch
path, out = sys.argv[1:]
processor = AutoProcessor.from_pretrained(REFERENCE_MODEL)
model = AutoModelForImageTextToText.from_pretrained(REFERENCE_MODEL).eval()
tokens = []
with apply_policy(model, load_policy(path), task="digits_read"), torch.inference_mode():
    for sample in load_pools("digits_read", {})["holdout"][:20]:
        content = [{"type": "image"}, {"type": "text", "text": sample.prompt}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=[sample.images[0].open()], text=[text], return_tensors="pt")
        answer = model.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs["input_ids"].shape[1]:]
        tokens.append(answer.tolist())
json.dump(tokens, open(out, "w"))
"""
    out = tmp_path / "tokens.json"
    subprocess.run([sys.executable, "-c", code, str(result.policy_file), str(out)], check=True, cwd=tmp_path)
    loaded, policies = load_model("reference", device="cpu"), result.policies
    for sample, tokens in zip(load_pools("digits_read", {})["holdout"][:20], json.loads(out.read_text()), strict=True):
        inputs = loaded.adapter.encode(loaded.processor, [sample.prompt], [[sample.images[0].open()]])
        with apply_policy(loaded.model, policies, task="digits_read"), torch.inference_mode():
            own = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=8)
        assert own[0, inputs["input_ids"].shape[1] :].tolist() == tokens


def test_the_holdout_numbers_are_reproduced_from_the_file(finished: tuple[Path, SearchResult]) -> None:
    folder, result = finished
    config = small_config(folder, "search=plain")
    loaded = load_model("reference", device="cpu")
    samples = make_splits(load_pools("digits_read", {}), 0, {"confirmation": 0, **config.samples.model_dump()})[
        "holdout"
    ]
    right = 0
    with apply_policy(loaded.model, load_policy(result.policy_file), task="digits_read"), torch.inference_mode():
        for sample in samples:
            inputs = loaded.adapter.encode(loaded.processor, [sample.prompt], [[sample.images[0].open()]])
            tokens = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=8)[
                :, inputs["input_ids"].shape[1] :
            ]
            right += loaded.processor.batch_decode(tokens, skip_special_tokens=True)[0] == sample.answers[0]
    stated = result.policies.tasks["digits_read"].measured["holdout"]
    assert right / len(samples) == pytest.approx(stated["accuracy"])
    assert len(samples) == stated["samples"]


@pytest.mark.slow
def test_a_candidate_that_fails_becomes_a_row_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vtw_search.engine import OnePassEvaluator

    original = OnePassEvaluator._records_from

    def sometimes(self: OnePassEvaluator, policy: Any, outcome: Any, logits: torch.Tensor, reference: Any) -> Any:
        broken = torch.full_like(logits, torch.nan) if policy.label() == "withdraw@3" else logits
        return original(self, policy, outcome, broken, reference)

    monkeypatch.setattr(OnePassEvaluator, "_records_from", sometimes)
    [study] = search(tmp_path, "search=failing").studies
    status = {row.measurement.policy.label(): row.status for row in study.rows}
    assert status["withdraw@3"] == "failed: logits are not finite"
    assert not any("failed" in text for label, text in status.items() if label != "withdraw@3")


def _raise(error: Exception) -> Any:
    def function(*_: Any) -> None:
        raise error

    return function


@pytest.mark.slow
def test_a_tracker_that_does_not_answer_costs_one_warning(tmp_path: Path) -> None:
    result = search(
        tmp_path, "search=untracked", "tracking=sqlite", "tracking.uri=http://127.0.0.1:9", "tracking.timeout_s=2"
    )
    output = (tmp_path / "output.txt").read_text()
    assert output.count("warning") == 1
    assert "goes on without it" in " ".join(output.split())
    assert result.policy_file.exists()


@pytest.mark.slow
def test_a_full_disk_stops_with_a_message_and_the_next_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vtw_search.errors import StoreError

    calls, sync = [], os.fsync

    def full(number: int) -> None:
        calls.append(number)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        sync(number)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        search(tmp_path, "search=full")
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.part"))
    result = search(tmp_path, "search=full")
    assert all(row.measurement.failure is None for row in result.studies[0].rows)


@pytest.mark.slow
def test_ctrl_c_leaves_a_search_that_resumes(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("search=stopped"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/_records/*/samples-*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "vtw-search: stopped; the same command continues where this one was"
    again = subprocess.run(command("search=stopped"), cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "done before" in again.stdout


@pytest.mark.slow
def test_a_sweep_runs_one_search_per_job_and_groups_them(tmp_path: Path) -> None:
    # Hydra's parser wants its flags before the overrides.
    sweep = ["-m", *SMALL, "limits.kl_nats=0.003,0.03", "seed=0", "search=sweep", "tracking=sqlite"]
    subprocess.run([sys.executable, "-m", "vtw_search", *sweep], cwd=tmp_path, check=True, capture_output=True)
    searches = sorted(path.name for path in (tmp_path / "runs").iterdir() if (path / "policy.json").exists())
    assert len(searches) == 2
    assert all(name.startswith("sweep-") for name in searches)
    assert_same_candidates(*(rows_of(tmp_path, name)[0] for name in searches[:2]))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'vtw-search'")
    parents = client.search_runs([experiment.experiment_id], "tags.kind = 'search'")
    assert len({run.data.tags["sweep"] for run in parents}) == 1
    assert len(parents) == 2
