"""Whole searches over two tasks of the shipped model: one policy for both, its file, and limits on time and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from vtw_search import apply_policy, load_policy
from vtw_search.config import load_config
from vtw_search.driver import SearchResult, run_search
from vtw_search.evaluation.model import load_model
from vtw_search.evaluation.tasks import load_pools

pytestmark = pytest.mark.slow

TASKS = ("easy_vqa_yesno", "digits_read")
SMALL = (
    f"task=[{','.join(TASKS)}]", "tracking=none", "profile=macs", "model.device=cpu", "batch_size=10",
    "samples.calibration=30", "samples.selection=30", "samples.confirmation=60", "samples.holdout=20",
    "noise.samples=4", "limits.accuracy_drop=0.1", "limits.kl_nats=0.02", "limits.kl_tail=0.2", "search=both",
)  # fmt: skip


def search(folder: Path, *overrides: str) -> SearchResult:
    with (folder / "output.txt").open("a") as stream:
        return run_search(load_config(*SMALL, f"runs={folder / 'runs'}", *overrides), Console(file=stream, width=100))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    folder = tmp_path_factory.mktemp("both")
    return folder, search(folder)


def test_the_shared_policy_holds_on_both_tasks_and_its_price_is_what_the_rows_say(
    finished: tuple[Path, SearchResult],
) -> None:
    folder, result = finished
    sharing = result.sharing
    assert sharing is not None
    assert sharing.shared is not None
    assert sharing.confirmation is not None
    assert sharing.confirmation.winner == sharing.shared.policy
    rows = {study.task: {row.measurement.policy: row for row in study.rows} for study in result.studies}
    for study in result.studies:
        price = sharing.shared.prices[study.task]
        assert price.own == study.chosen.measurement.macs
        assert price.shared == rows[study.task][sharing.shared.policy].measurement.macs
        assert rows[study.task][sharing.shared.policy].feasible
        for other in result.studies:
            cell = sharing.transfer[study.task][other.task]
            assert cell.measurement == rows[other.task][study.chosen.measurement.policy].measurement
    assert sharing.shared.total.lost == sum(price.lost for price in sharing.shared.prices.values()) > 0
    text = (folder / "output.txt").read_text()
    assert "one policy for all 2 tasks" in " ".join(text.split())
    for name in ("sharing.json", "transfer.csv", "transfer.png"):
        assert (result.folder / "report" / name).exists()


def test_the_shared_file_serves_without_a_task_name(finished: tuple[Path, SearchResult]) -> None:
    _, result = finished
    assert result.sharing is not None
    assert result.sharing.shared is not None
    own, shared = load_policy(result.policy_file), load_policy(result.folder / "policy_shared.json")
    assert own.default.is_keep_all
    assert shared.default == result.sharing.shared.policy
    assert {task.policy for task in shared.tasks.values()} == {shared.default}
    for name, task in shared.tasks.items():
        assert {"confirmation", "holdout"} < task.measured.keys()
        assert task.measured["noise_floor"] == own.tasks[name].measured["noise_floor"]
        assert task.measured["policy_noise"] == result.sharing.shared.noise[name]
        assert set(task.measured["policy_noise"]) == {"batch", "attention", "dtype"}
    loaded = load_model("reference", device="cpu")
    sample = load_pools("digits_read", {})["holdout"][0]
    inputs = loaded.adapter.encode(loaded.processor, [sample.prompt], [[sample.images[0].open()]])
    answers = []
    for policies in (shared, result.sharing.shared.policy):
        with apply_policy(loaded.model, policies), torch.inference_mode():
            answers.append(loaded.model.generate(**inputs, do_sample=False, max_new_tokens=8).tolist())
    assert answers[0] == answers[1]


def test_the_same_search_again_measures_and_looks_at_nothing_new(
    finished: tuple[Path, SearchResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = finished
    ledger = folder / "runs" / "holdout_ledger.jsonl"
    before = ledger.read_text()

    def never(*_: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("vtw_search.search.study.OnePassEvaluator", never)
    again = search(folder)
    assert again.sharing == result.sharing
    assert ledger.read_text() == before
    entries = [json.loads(line) for line in before.splitlines()]
    assert sum(entry["split"] == "holdout" for entry in entries) == len(
        {(study.task, policy) for study in result.studies
         for policy in (study.chosen.measurement.policy, result.sharing.shared.policy)}  # type: ignore[union-attr]
    )  # fmt: skip


def test_the_shared_policy_becomes_the_default_for_those_who_ask(finished: tuple[Path, SearchResult]) -> None:
    folder, result = finished
    asked = search(folder, "search=asked", "shared_default=true")
    assert asked.sharing is not None
    assert asked.sharing.shared is not None
    policies = load_policy(asked.policy_file)
    assert policies.default == asked.sharing.shared.policy
    assert policies.tasks["digits_read"].policy == result.policies.tasks["digits_read"].policy
    assert policies.provenance["default"]["verdict"] == asked.sharing.verdict


def test_a_file_of_an_earlier_run_does_not_stay_without_a_shared_policy(finished: tuple[Path, SearchResult]) -> None:
    folder, _ = finished
    path = search(folder, "search=then").folder / "policy_shared.json"
    assert path.exists()
    search(folder, "search=then", "task=digits_read")
    assert not path.exists()


def test_samplers_that_measured_other_policies_share_one_all_the_same(tmp_path: Path) -> None:
    result = search(
        tmp_path, "space=fastv", "sampler=random", "sampler.trials=5", "sampler.batch=4", "limits.confidence=null",
        "samples.confirmation=0", "limits.accuracy_drop=0.3", "limits.kl_nats=1.0",
    )  # fmt: skip
    assert result.sharing is not None
    assert result.sharing.shared is not None
    for rows in result.sharing.transfer.values():
        assert all(row.measurement.failure is None for row in rows.values())
    assert all(row.feasible for row in result.sharing.shared.rows.values())


def test_limits_on_time_time_every_candidate_also_on_records_without_times(tmp_path: Path) -> None:
    common = ("task=easy_vqa_yesno", "limits.confidence=null", "samples.confirmation=0", "profile.repeats=3")
    common = (*common, "profile=time")
    plain = search(tmp_path, *common, "search=plain").studies[0]
    timed = search(tmp_path, *common, "search=timed", "limits=fastest_2_points").studies[0]
    assert any(row.measurement.latency_ms is None for row in plain.rows)
    times = {row.measurement.layer: row.measurement.latency_ratio for row in timed.rows}
    assert None not in times.values()
    feasible = [row for row in timed.rows[1:] if row.feasible]
    fastest = min(feasible, key=lambda row: row.measurement.latency_ratio or 0).measurement
    assert timed.chosen.measurement.latency_ratio == fastest.latency_ratio


def test_a_limit_on_memory_holds_for_the_choice(tmp_path: Path) -> None:
    common = ("task=easy_vqa_yesno", "limits.confidence=null", "samples.confirmation=0", "limits=kv_30_percent")
    [study] = search(tmp_path, *common, "limits.at_most.cache_ratio=0.6").studies
    chosen = study.chosen.measurement
    assert chosen.cache_ratio is not None
    assert chosen.cache_ratio <= 0.6
    assert any((row.measurement.cache_ratio or 0) > 0.6 for row in study.rows[1:])
