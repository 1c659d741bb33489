"""What MLflow shows of the tests and of the noise floor. Pure functions; no store is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tracking.factory import make_study
from vtw_search.policies import Policy
from vtw_search.results import Bounded, Confirmation, Finalist, StudyResult
from vtw_search.tracking.content import SearchLabel, search_content, study_content

LABEL = SearchLabel("s", "key")


@pytest.fixture
def result() -> StudyResult:
    passed = Finalist(Policy.withdraw(6), (Bounded("kl_nats", 0.05, 0.01, 0.02, 300, "betting"),))
    failed = Finalist(Policy.withdraw(4), (Bounded("kl_nats", 0.05, 0.04, 0.06, 300, "betting"),))
    tested = Confirmation(0.95, 310, 300, 1, (passed, failed), ("withdraw@3",))
    noise, own = ({"dtype": {"mean_nats": mean, "max_nats": 1e-4}} for mean in (1e-5, 2e-5))
    return replace(make_study(), confirmation=tested, noise=noise, policy_noise=own)


def test_the_bounds_of_the_confirmed_policy_are_metrics(result: StudyResult) -> None:
    metrics = study_content(LABEL, result, 8, "FINISHED").metrics
    assert metrics["confirmation.kl_nats_upper"] == 0.02
    assert metrics["confirmation.level"] == 0.95
    assert metrics["confirmation.images"] == 300
    assert metrics["confirmation.confirmed"] == 1
    assert metrics["noise_floor.dtype.mean_nats"] == 1e-5
    assert metrics["policy_noise.dtype.mean_nats"] == 2e-5


def test_nothing_confirmed_is_a_zero_and_has_no_bounds(result: StudyResult) -> None:
    assert result.confirmation is not None
    lost = replace(result, confirmation=replace(result.confirmation, finalists=result.confirmation.finalists[1:]))
    metrics = study_content(LABEL, lost, 8, "FINISHED").metrics
    assert metrics["confirmation.confirmed"] == 0
    assert "confirmation.kl_nats_upper" not in metrics


def test_the_note_lists_the_finalists_in_order(result: StudyResult) -> None:
    note = study_content(LABEL, result, 8, "FINISHED").tags["mlflow.note.content"]
    failed = "| withdraw@4 | failed: kl_nats 0.04, at most 0.06 > 0.05"
    texts = ("tested with 95% confidence on 300 images", "| withdraw@6 | passed", failed, "| withdraw@3")
    places = [note.index(text) for text in texts]
    assert places == sorted(places)


def test_a_study_without_tests_shows_none(result: StudyResult) -> None:
    plain = make_study()
    content = study_content(LABEL, plain, 8, "FINISHED")
    assert not [name for name in content.metrics if name.startswith(("confirmation", "noise", "policy_noise"))]
    assert "tested with" not in content.tags["mlflow.note.content"]


def test_the_search_summarises_the_tests_per_task(result: StudyResult) -> None:
    metrics = search_content(LABEL, {}, "vtw-search", [result], "FINISHED").metrics
    assert metrics["digits_read.confirmation.kl_nats_upper"] == 0.02
