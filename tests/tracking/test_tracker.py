"""What a person finds in MLflow after a search."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient, get_tracking_uri

from tests.tracking.conftest import COMMAND, CONFIG, Runs
from tests.tracking.factory import make_artifacts, make_sharing, make_study
from vtw_search.tracking import MlflowTracker, NoTracker, Tracker, TrackingSettings
from vtw_search.tracking.notes import study_note

NewTracker = Callable[..., MlflowTracker]
GetRuns = Callable[[], Runs]


@pytest.fixture(scope="module")
def tracked(store: Path, client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A search of two tasks, one with a failed candidate; only read."""
    folder = tmp_path_factory.mktemp("searches") / "two-tasks"
    tracker = MlflowTracker(
        TrackingSettings(f"sqlite:///{store}/mlflow.db"), folder.name, folder, "sweep-1", warn=pytest.fail
    )
    tracker.start(CONFIG, COMMAND)
    tracker.log_study(make_study("digits_read"), make_artifacts(folder / "digits_read"))
    tracker.log_study(make_study("digits_colour", failed=2))
    tracker.log_sharing(make_sharing("digits_read", "digits_colour"))
    (folder / "policy.json").write_text("{}")
    tracker.finish("FINISHED", [folder / "policy.json"])
    return Runs(client, folder.name)


def test_runs_are_nested(tracked: Runs) -> None:
    (search,) = tracked("search")
    studies = {str(run.info.run_name): run for run in tracked("study")}
    assert set(studies) == {"digits_read", "digits_colour"}
    assert {run.data.tags["mlflow.parentRunId"] for run in studies.values()} == {search.info.run_id}
    for task, study in studies.items():
        below = [run for run in tracked("candidate") if run.data.tags["mlflow.parentRunId"] == study.info.run_id]
        assert len(below) == 8
        assert {run.data.tags["task"] for run in below} == {task}
    assert {run.info.status for run in [search, *studies.values()]} == {"FINISHED"}
    assert {run.data.tags["sweep"] for run in [search, *studies.values(), *tracked("candidate")]} == {"sweep-1"}


def test_the_search_shows_the_price_of_one_policy_for_all(tracked: Runs) -> None:
    (search,) = tracked("search")
    assert search.data.metrics["shared.digits_read.lost_macs"] == 40
    assert search.data.metrics["shared.lost_macs_ratio"] == 0.1
    assert "| policy of | on digits_read | on digits_colour |" in search.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("metric", ["accuracy", "kl_answer_nats", "macs", "latency_ms"])
def test_candidates_can_be_sorted(tracked: Runs, metric: str) -> None:
    order = f"metrics.{metric} ASC"
    values = [run.data.metrics.get(metric) for run in tracked("candidate", order)]
    known = [value for value in values if value is not None]
    assert len(values) == 16
    assert len(known) == 15
    assert known == sorted(known)


def test_the_chosen_candidate_can_be_seen(tracked: Runs) -> None:
    chosen = [run for run in tracked("candidate") if run.data.tags["chosen"] == "yes"]
    assert [run.info.run_name for run in chosen] == ["★ withdraw@5 (chosen)"] * 2
    for run in chosen:
        assert run.data.metrics["chosen"] == run.data.metrics["feasible"] == run.data.metrics["on_front"] == 1
        assert run.data.tags["status"].startswith("chosen: withdraw@5 is the cheapest")
        assert run.data.params == {"policy": "withdraw@5", "layer": "5"}
    # The newest run is the first that MLflow lists.
    assert tracked.names("candidate")[:2] == ["★ withdraw@5 (chosen)", "keep-all"]


def test_a_candidate_that_was_not_chosen_says_why(tracked: Runs) -> None:
    by_name = {str(run.info.run_name): run for run in tracked("candidate") if run.data.tags["task"] == "digits_read"}
    rejected = by_name["withdraw@1"]
    assert rejected.data.tags["status"] == "kl_nats 3.9901 > 0.05; accuracy_drop 0.5540 > 0.02"
    assert rejected.data.metrics["limit_excess.accuracy_drop"] == pytest.approx(0.534)
    assert "| kl_nats | 3.99 |" in rejected.data.tags["mlflow.note.content"]
    assert by_name["withdraw@7"].data.tags["status"] == "feasible, on the front"
    assert "at least as good" in by_name["withdraw@6"].data.tags["status"]


def test_a_failed_candidate_has_a_status_and_no_numbers(tracked: Runs) -> None:
    (failed,) = [run for run in tracked("candidate") if run.info.status == "FAILED"]
    assert failed.data.tags["status"] == "failed: logits are NaN"
    assert failed.data.metrics["feasible"] == 0
    assert "accuracy" not in failed.data.metrics
    assert "macs" not in failed.data.metrics


def test_the_search_summarises_its_tasks(tracked: Runs) -> None:
    (search,) = tracked("search")
    assert search.data.metrics["digits_read.layer"] == 5
    assert search.data.metrics["digits_read.holdout.accuracy"] == 0.9433
    assert {"digits_colour.accuracy", "digits_colour.macs_ratio"} <= search.data.metrics.keys()
    assert search.data.params == {"model.name": "reference", "model.dtype": "float32", "seed": "0"}
    assert search.data.tags["command"] == COMMAND
    assert "| digits_read | **withdraw@5** | 0.9500 |" in search.data.tags["mlflow.note.content"]


def test_a_time_that_should_not_be_relied_upon_has_a_question_mark() -> None:
    study = make_study()
    chosen = study.chosen.measurement
    assert "?" not in study_note(study, 1)
    doubted = replace(study.chosen, measurement=chosen.model_copy(update={"latency_problems": "others were busy"}))
    rows = tuple(doubted if row is study.chosen else row for row in study.rows)
    assert f"| {chosen.latency_ratio:.1%}? |" in study_note(replace(study, rows=rows, chosen=doubted), 1)


def test_a_study_shows_its_verdict_limits_and_answer(tracked: Runs) -> None:
    study = next(run for run in tracked("study") if run.info.run_name == "digits_colour")
    assert study.data.tags["mlflow.note.content"].startswith("**withdraw@5 is the cheapest")
    assert study.data.tags["limit.kl_nats.bound"] == "0.05"
    assert study.data.tags["identity.scoring.withdraw"] == "1"
    assert study.data.metrics["candidates"] == 8
    assert study.data.metrics["candidates_failed"] == 1
    assert study.data.metrics["layer"] == 5


def test_artifacts_can_be_downloaded(tracked: Runs, client: MlflowClient, store: Path, tmp_path: Path) -> None:
    study = next(run for run in tracked("study") if run.info.run_name == "digits_read")
    (search,) = tracked("search")
    assert {file.path for file in client.list_artifacts(study.info.run_id)} == {"front.csv", "front.html", "records"}
    table = Path(client.download_artifacts(study.info.run_id, "front.csv", str(tmp_path)))
    assert table.read_text().startswith("policy,accuracy")
    client.download_artifacts(study.info.run_id, "records/measurements.jsonl", str(tmp_path))
    assert [file.path for file in client.list_artifacts(search.info.run_id)] == ["policy.json"]
    assert search.info.artifact_uri == (store / "mlartifacts" / search.info.run_id / "artifacts").as_uri()


def test_the_experiment_offers_views(tracked: Runs, client: MlflowClient) -> None:
    tags = client.get_experiment(tracked.experiment).tags
    view = json.loads(tags["mlflow.sharedViewState.vtw-candidates"])
    state = json.loads(view["state"])
    assert view["name"] == "Candidates"
    query = state["searchFilter"] + f" and tags.search = '{tracked.names('search')[0]}'"
    assert len(client.search_runs([tracked.experiment], query, order_by=[f"{state['orderByKey']} DESC"])) == 16
    assert "Views" in tags["mlflow.note.content"]


def test_at_most_so_many_candidates_get_a_run(new_tracker: NewTracker, runs: GetRuns) -> None:
    tracker = new_tracker(max_candidates=5)
    tracker.start(CONFIG, COMMAND)
    tracker.log_study(make_study(layers=20, needs=10))
    names = runs().names("candidate")
    assert names == ["★ withdraw@12 (chosen)", "keep-all", "withdraw@14", "withdraw@1", "withdraw@2"]
    (study,) = runs()("study")
    assert study.data.metrics["candidates"] == 20
    assert "5 of 20 candidates" in study.data.tags["mlflow.note.content"]


def test_a_long_configuration_is_cut_and_says_so(new_tracker: NewTracker, runs: GetRuns) -> None:
    config = {"task": {"prompt": "x" * 9000}, "many": {f"value {n}!": n for n in range(150)}}
    new_tracker().start(config, COMMAND)
    (search,) = runs()("search")
    assert len(search.data.params) == 151
    assert search.data.params["task.prompt"].endswith("x [cut, 9000 characters]")
    assert "task.prompt" in search.data.tags["mlflow.note.content"]


def test_secrets_stay_out(new_tracker: NewTracker, runs: GetRuns) -> None:
    config = {
        "model": {"hf_token": "s3cret", "url": "https://me:s3cret@host/x"},
        "tracking": {"uri": "http://a:s3cret@b"},
    }
    new_tracker().start(config, "vtw-search tracking.uri=http://a:s3cret@b:5000")
    (search,) = runs()("search")
    assert search.data.params == {"model.hf_token": "***", "model.url": "https://***@host/x"}
    assert "s3cret" not in str(search.data)


def test_nothing_of_mlflow_stays_changed(new_tracker: NewTracker, capfd: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ), get_tracking_uri(), logging.getLogger("mlflow").level
    tracker = new_tracker()
    tracker.start(CONFIG, COMMAND)
    tracker.log_study(make_study())
    tracker.finish("FINISHED")
    assert (dict(os.environ), get_tracking_uri(), logging.getLogger("mlflow").level) == before
    assert capfd.readouterr() == ("", "")


def test_start_comes_first(new_tracker: NewTracker) -> None:
    with pytest.raises(RuntimeError, match="start"):
        new_tracker().log_study(make_study())


def test_a_mistake_of_the_caller_is_not_taken_for_the_store(new_tracker: NewTracker) -> None:
    tracker = new_tracker()
    tracker.start(CONFIG, COMMAND)
    with pytest.raises(AttributeError):
        tracker.log_study(None)  # type: ignore[arg-type]


def test_no_tracker_does_nothing(tmp_path: Path) -> None:
    trackers: list[Tracker] = [NoTracker()]
    for tracker in trackers:
        tracker.start({}, "")
        tracker.log_study(make_study())
        tracker.finish("FAILED")
    assert not list(tmp_path.iterdir())


def test_a_folder_can_be_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    tracker = MlflowTracker(TrackingSettings(str(tmp_path / "mlruns")), "search", folder, warn=pytest.fail)
    tracker.start(CONFIG, COMMAND)
    tracker.log_study(make_study(layers=3, needs=1), make_artifacts(tmp_path / "files"))
    tracker.finish("FINISHED")
    assert list((tmp_path / "mlruns").rglob("front.html"))
