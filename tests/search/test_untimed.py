"""Candidates whose times could not be taken, where limits or the objective need them and where nobody does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest

from tests.search.records import records, row_of
from vtw_search.errors import OutOfReachError
from vtw_search.records import Measured, Measurement, RecordStore
from vtw_search.results import Row
from vtw_search.search.answer import choose, judged_rows, require_affordable
from vtw_search.search.front import least_infeasible
from vtw_search.search.limits import Limits
from vtw_search.search.objective import objective_of
from vtw_search.search.sampling import tell
from vtw_search.search.trials import record_trials

LIMITS = Limits(None, "answer", "reference_candidate")
BOUNDED, PREFERRED = replace(LIMITS, at_most={"latency_ms": 9.0}), replace(LIMITS, prefer=("latency_ratio",))

UNTIMED = "not timed: the clock jumped"


def judged_as(asked: Limits, *measurements: Measurement) -> list[Row]:
    splits = ("calibration", "selection")
    frame = pd.concat([records(row.layer, split, [0.0] * 4, [1.0] * 4) for row in measurements for split in splits])
    found = Measured({row.policy.digest(): row for row in measurements}, frame, "here")
    return judged_rows(found, [row.policy for row in measurements], asked)


@pytest.mark.parametrize("asked", [BOUNDED, PREFERRED])
def test_without_a_time_that_is_needed_nothing_is_feasible_and_the_status_says_why(asked: Limits) -> None:
    timed = row_of(3, 300, latency_ms=5.0, latency_ratio=0.5).measurement
    rows = judged_as(asked, *(row_of(layer, 100 * layer, latency_problems=UNTIMED).measurement for layer in (12, 5)))
    assert [(row.feasible, row.status) for row in rows] == [(False, UNTIMED)] * 2
    assert [row.feasible for row in judged_as(asked, rows[0].measurement, timed)] == [False, True]
    assert least_infeasible(rows[1:]) == rows[1]
    answer = choose(rows, objective_of(asked.prefer, asked.weights))
    assert answer.verdict == f"keep-all: no other policy meets the limits; closest is withdraw@5, blocked by {UNTIMED}"
    if asked.at_most:
        with pytest.raises(OutOfReachError, match=f"no policy for t meets every limit: {UNTIMED}"):
            require_affordable("t", answer, asked)
    else:
        require_affordable("t", answer, asked)


def test_without_a_time_that_nobody_asks_for_the_other_numbers_count() -> None:
    rows = judged_as(LIMITS, *(row_of(layer, 100 * layer, latency_problems=UNTIMED).measurement for layer in (12, 5)))
    assert [row.status for row in rows] == ["feasible", "feasible"]


@pytest.mark.parametrize("asked", [BOUNDED, PREFERRED])
def test_a_time_that_could_not_be_taken_is_told_from_one_that_nobody_asked_for(asked: Limits, tmp_path: Path) -> None:
    """A search without limits on time has measured the policy before, and took no time of it."""
    store = RecordStore(tmp_path, {})
    for changes in ({}, {"latency_problems": UNTIMED}, {"latency_problems": "another reason"}):
        store.add_measurement(row_of(12, 1000, **changes).measurement)
    (row,) = judged_as(asked, *store.measurements().values())
    assert (row.feasible, row.status) == (False, UNTIMED)
    for changes in ({"latency_problems": "in doubt"}, {"latency_ms": 7.0}):
        store.add_measurement(row_of(12, 1000, **({"latency_ms": 5.0} | changes)).measurement)
    (measurement,) = store.measurements().values()
    assert (measurement.latency_ms, measurement.latency_problems) == (5.0, "in doubt")


def test_a_trial_without_the_time_that_it_needs_is_not_complete() -> None:
    storage, asked = optuna.storages.InMemoryStorage(), BOUNDED
    (row,) = judged_as(asked, row_of(12, 1000, latency_problems=UNTIMED).measurement)
    timed = replace(row, measurement=row.measurement.model_copy(update={"latency_ms": 5.0}), untimed=None)
    for each in (row, row, timed, timed):
        study = record_trials(storage, "t", [each], asked, {})
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE"]
    sampled = optuna.create_study(directions=["maximize", "minimize"])
    tell(sampled, sampled.ask(), row)
    assert sampled.trials[0].constraints == {"untimed": 1.0}


def test_limits_without_those_on_time() -> None:
    asked = replace(BOUNDED, at_most={"latency_ms": 9.0, "macs_ratio": 0.5}, kl_nats=0.01)
    assert asked.without_time() == replace(asked, at_most={"macs_ratio": 0.5})
    assert LIMITS.without_time() == LIMITS
