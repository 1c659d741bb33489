"""The same search tracked again: nothing twice, nothing missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.tracking.conftest import COMMAND, CONFIG, Runs
from tests.tracking.factory import make_artifacts, make_study
from vtw_search.results import StudyResult
from vtw_search.tracking import MlflowTracker, TrackingSettings

NewTracker = Callable[..., MlflowTracker]
GetRuns = Callable[[], Runs]


def track(tracker: MlflowTracker, *studies: StudyResult, artifacts: list[Path] | None = None) -> None:
    """Do what a driver does."""
    tracker.start(CONFIG, COMMAND)
    for study in studies:
        tracker.log_study(study, artifacts or [])
    tracker.finish("FINISHED")


def ids(runs: Runs) -> set[str]:
    return {run.info.run_id for kind in ("search", "study", "candidate") for run in runs(kind)}


def test_the_same_result_changes_nothing(new_tracker: NewTracker, runs: GetRuns) -> None:
    studies = make_study("a", layers=4, needs=1), make_study("b", layers=4, needs=1)
    track(new_tracker(), *studies)
    first = ids(runs())
    track(new_tracker(), *studies)
    assert ids(runs()) == first
    assert len(first) == 1 + 2 + 8


def test_an_unchanged_candidate_is_not_written_again(new_tracker: NewTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    track(new_tracker(), make_study())
    written: list[str] = []
    original = MlflowClient.log_batch

    def log_batch(self: MlflowClient, run_id: str, *args: Any, **kwargs: Any) -> object:
        written.append(run_id)
        return original(self, run_id, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    track(new_tracker(), make_study())
    # The note of a search is rewritten as its tasks come in.
    assert len(set(written)) <= 1


def test_another_answer_moves_the_mark(new_tracker: NewTracker, runs: GetRuns) -> None:
    track(new_tracker(), make_study(needs=3))
    before = {str(run.info.run_name): run.info.run_id for run in runs()("candidate")}
    track(new_tracker(), make_study(needs=4))
    after = {str(run.info.run_name): run.info.run_id for run in runs()("candidate")}
    assert after["★ withdraw@6 (chosen)"] == before["withdraw@6"]
    assert after["withdraw@5"] == before["★ withdraw@5 (chosen)"]
    assert [run.data.metrics["layer"] for run in runs()("candidate") if run.data.metrics["chosen"]] == [6]


def test_candidates_that_are_no_longer_shown_leave(
    new_tracker: NewTracker, runs: GetRuns, client: MlflowClient
) -> None:
    track(new_tracker(max_candidates=8), make_study())
    (study,) = runs()("study")
    own = client.create_run(runs().experiment, tags={"mlflow.parentRunId": study.info.run_id})
    track(new_tracker(max_candidates=3), make_study())
    assert runs().names("candidate") == ["★ withdraw@5 (chosen)", "keep-all", "withdraw@7"]
    assert client.get_run(own.info.run_id).info.lifecycle_stage == "active", "a user's own run was deleted"


@pytest.mark.parametrize("method", ["create_run", "log_batch", "set_terminated", "log_artifact"])
@pytest.mark.parametrize(("call", "after"), [(1, True), (2, False), (4, True)])
def test_a_kill_in_the_middle_loses_nothing(
    new_tracker: NewTracker, runs: GetRuns, folder: Path, method: str, call: int, *, after: bool
) -> None:
    studies = make_study("a", layers=3, needs=1), make_study("b", layers=3, needs=1)
    artifacts = make_artifacts(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, method, killing(getattr(MlflowClient, method), call, after=after))
        with pytest.raises(KeyboardInterrupt):
            track(new_tracker(), *studies, artifacts=artifacts)
    track(new_tracker(), *studies, artifacts=artifacts)
    found = runs()
    assert [len(found(kind)) for kind in ("search", "study", "candidate")] == [1, 2, 6]
    assert {run.info.status for kind in ("search", "study", "candidate") for run in found(kind)} == {"FINISHED"}
    assert all("macs" in run.data.metrics for run in found("candidate"))


def killing(method: Callable[..., Any], call: int, *, after: bool) -> Callable[..., Any]:
    """Return `method` that is interrupted at its n-th call, before or after it has done its work."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise KeyboardInterrupt
        result = method(*args, **kwargs)
        if calls == call:
            raise KeyboardInterrupt
        return result

    return wrapped


def test_runs_that_a_user_deleted_are_made_anew(
    new_tracker: NewTracker, runs: GetRuns, client: MlflowClient, folder: Path
) -> None:
    track(new_tracker(), make_study())
    old = json.loads((folder / "tracking.json").read_text())
    client.delete_run(old["runs"]["search"])
    track(new_tracker(), make_study())
    new = json.loads((folder / "tracking.json").read_text())
    assert new["key"] == old["key"]
    assert new["runs"]["search"] != old["runs"]["search"]
    assert [run.info.run_id for run in runs()("search")] == [new["runs"]["search"]]


def test_another_store_starts_anew(new_tracker: NewTracker, folder: Path, tmp_path: Path) -> None:
    track(new_tracker(), make_study(layers=3, needs=1))
    other = MlflowTracker(TrackingSettings(str(tmp_path / "mlruns")), folder.name, folder, warn=pytest.fail)
    track(other, make_study(layers=3, needs=1))
    assert json.loads((folder / "tracking.json").read_text())["uri"] == str(tmp_path / "mlruns")


def test_another_configuration_is_another_parent(new_tracker: NewTracker, runs: GetRuns) -> None:
    for seed in (0, 1, 0):
        tracker = new_tracker()
        tracker.start({"seed": seed, "tracking": {"timeout_s": seed}}, COMMAND)
        tracker.finish("FINISHED")
    assert sorted(run.data.params["seed"] for run in runs()("search")) == ["0", "1"]


def test_how_it_is_run_may_change(new_tracker: NewTracker, runs: GetRuns) -> None:
    for workers in (1, 2):
        new_tracker().start({"seed": 0, "launcher": {"workers": workers}}, COMMAND)
    assert len(runs()("search")) == 1


def test_a_damaged_memory_starts_anew(new_tracker: NewTracker, runs: GetRuns, folder: Path) -> None:
    track(new_tracker(), make_study(layers=3, needs=1))
    (folder / "tracking.json").write_text("{")
    track(new_tracker(), make_study(layers=3, needs=1))
    assert len(runs()("search")) == 2
