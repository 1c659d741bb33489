"""Whole searches with confidence on the shipped model: what is tested, refused, and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from vtw_search import load_policy
from vtw_search.config import load_config
from vtw_search.driver import SearchResult, run_search
from vtw_search.errors import ConfigError, OutOfReachError
from vtw_search.evaluation.bounds import share_upper_bound

pytestmark = pytest.mark.slow

SMALL = (
    "task=digits_read", "tracking=none", "profile=macs", "model.device=cpu", "space.first_layer=10",
    "samples.calibration=30", "samples.selection=30", "samples.confirmation=60", "samples.holdout=20",
    "noise.samples=4", "limits.accuracy_drop=0.1", "limits.kl_nats=0.02", "limits.kl_tail=0.2",
    "search=tested",
)  # fmt: skip


def search(folder: Path, *overrides: str) -> SearchResult:
    with (folder / "output.txt").open("a") as stream:
        config = load_config(*SMALL, f"runs={folder / 'runs'}", *overrides)
        return run_search(config, Console(file=stream, width=110))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    folder = tmp_path_factory.mktemp("tested")
    return folder, search(folder)


def test_the_policy_file_says_what_holds_with_which_confidence(finished: tuple[Path, SearchResult]) -> None:
    folder, result = finished
    entry = load_policy(result.policy_file).tasks["digits_read"]
    tested = entry.measured["confirmation"]
    assert (tested["level"], tested["samples"], tested["images"]) == (0.95, 60, 60)
    assert tested["looks_at_this_split"] == 1
    assert set(tested["tests"]) == {"kl_nats", "kl_tail", "accuracy_drop"}
    assert all(test["value"] <= test["upper"] <= test["bound"] for test in tested["tests"].values())
    assert tested["tests"]["kl_tail"]["upper"] >= share_upper_bound(0, 60, 0.95)
    assert "limits hold with 95% confidence on 60 images" in entry.verdict
    assert set(entry.measured["noise_floor"]) == {"batch", "attention", "dtype"}
    assert "accuracy_drop_gap" in entry.measured["holdout"]
    assert "60 images certify at best" in (folder / "output.txt").read_text()
    assert (result.folder / "report" / "digits_read" / "confirmation.csv").exists()


def test_the_confirmation_samples_are_no_others(finished: tuple[Path, SearchResult]) -> None:
    digests = load_policy(finished[1].policy_file).tasks["digits_read"].dataset_digests
    assert len(set(digests.values())) == 4


def test_the_same_search_again_looks_at_nothing_new(finished: tuple[Path, SearchResult]) -> None:
    folder, result = finished
    again = search(folder)
    assert again.studies[0].confirmation == result.studies[0].confirmation
    entries = [json.loads(line) for line in (folder / "runs" / "holdout_ledger.jsonl").read_text().splitlines()]
    assert [entry["split"] for entry in entries] == ["confirmation", "holdout"]


def test_limits_that_the_finalists_break_give_keep_all_with_the_reason(
    finished: tuple[Path, SearchResult],
) -> None:
    """60 images certify a drop of 0.06 when no answer is lost, and here one is."""
    folder, _ = finished
    [study] = search(folder, "search=strict", "limits.accuracy_drop=0.06").studies
    assert study.confirmation is not None
    # Other limits on the same samples are another test.
    assert study.confirmation.looks >= 2
    [first, *_] = study.confirmation.finalists
    assert not first.passed
    assert study.chosen.measurement.policy.is_keep_all
    assert f"nothing holds with 95% confidence; {first.policy.label()} failed: accuracy_drop" in study.verdict


def test_limits_out_of_reach_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"digits_read: accuracy_drop <= 0.02 needs 149; 60 images certify 0.048"):
        search(tmp_path, "limits.accuracy_drop=0.02")
    assert not (tmp_path / "runs").exists()


def test_a_kl_limit_below_the_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="noise floor"):
        search(tmp_path, "limits.kl_nats=1e-9")


def test_no_policy_is_written_when_keep_all_costs_too_much(tmp_path: Path) -> None:
    with pytest.raises(OutOfReachError) as raised:
        search(tmp_path, "+limits.at_most.macs_ratio=0.01")
    assert raised.value.exit_code == 3
    assert not list((tmp_path / "runs").rglob("policy.json"))
