"""What MLflow shows of one policy for all tasks, of the transfer table, and of baselines. No store is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tracking.factory import make_measurement, make_row, make_sharing, make_study
from vtw_search.results import Baseline
from vtw_search.tracking.content import SearchLabel, search_content, study_content
from vtw_search.transfer import Sharing

LABEL = SearchLabel("s", "key")
NOTE = "mlflow.note.content"


@pytest.fixture
def sharing() -> Sharing:
    return make_sharing()


def test_the_price_of_sharing_is_metrics(sharing: Sharing) -> None:
    metrics = search_content(LABEL, {}, "vtw-search", [make_study("a")], "FINISHED", sharing).metrics
    assert (metrics["shared.a.lost_macs"], metrics["shared.a.lost_macs_ratio"]) == (40, 0.2)
    assert (metrics["shared.lost_macs"], metrics["shared.lost_macs_ratio"]) == (40, 0.1)
    assert metrics["shared.macs_ratio"] == 0.7


def test_the_note_has_the_verdict_and_the_table(sharing: Sharing) -> None:
    note = search_content(LABEL, {}, "vtw-search", [make_study("a")], "FINISHED", sharing).tags[NOTE]
    assert "**one policy for all 2 tasks: withdraw@7**" in note
    assert "| policy of | on a | on b\\|c |" in note
    lines = [line for line in note.splitlines() if line.startswith(("| a | drop", "| all tasks |"))]
    assert len(lines) == 2
    assert "breaks a limit" in lines[0]
    assert "breaks a limit" not in lines[1]


def test_one_task_shows_nothing_of_it() -> None:
    content = search_content(LABEL, {}, "vtw-search", [make_study("a")], "FINISHED")
    assert not [name for name in content.metrics if name.startswith("shared")]
    assert "policy of" not in content.tags[NOTE]


def test_no_shared_policy_leaves_the_table_and_no_price(sharing: Sharing) -> None:
    content = search_content(LABEL, {}, "vtw-search", [], "FINISHED", replace(sharing, shared=None))
    assert "policy of" in content.tags[NOTE]
    assert not [name for name in content.metrics if name.startswith("shared")]


def test_a_study_shows_its_baselines_with_the_paired_interval() -> None:
    baseline = Baseline(make_row(make_measurement("a", 2, 8, 3.0)), 0.05, 0.02, 0.08)
    note = study_content(LABEL, replace(make_study("a"), baselines=(baseline,)), 8, "FINISHED").tags[NOTE]
    assert "| +0.050 (+0.020 to +0.080) |" in note
    assert "| withdraw@2 |" in note
    assert "baseline" not in study_content(LABEL, make_study("a"), 8, "FINISHED").tags[NOTE]
