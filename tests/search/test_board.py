"""The board of workers that die, are stopped and come back at any point: one trial of a policy has its result."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.search.test_sampling import row_of
from tests.search.test_together import board_of
from vtw_search import Policy
from vtw_search.evaluation.model import load_model
from vtw_search.records import Measurement
from vtw_search.results import Row
from vtw_search.search.board import Board, copy_of
from vtw_search.search.sampling import policy_of
from vtw_search.search.space import Space, make_space


@pytest.fixture(scope="module")
def space() -> Space:
    return make_space(load_model("reference", device="cpu").facts, {"vtw": {}}, None)


def chosen(board: Board, space: Space, policy: Policy) -> dict[Policy, optuna.Trial]:
    """Reserve a policy for the worker of a board."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = (study.ask() for _ in range(1000))
    trial = next(trial for trial in trials if policy_of(trial, space) == policy)
    return board.reserve([study.get_trials(deepcopy=False)[trial.number]], {})


def told(board: Board) -> list[Policy]:
    """The policies with results, one per trial."""
    return [policy for trial in board.measured().values() for policy in board.policies([trial])]


def test_a_worker_may_come_back_at_any_point_of_a_take_over(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, yours = (board_of(tmp_path, number, space) for number in (0, 1))
    first, second, third = Policy.withdraw(5), Policy.withdraw(6), Policy.withdraw(7)
    known = {policy: row_of(policy) for policy in (first, second, third)}

    # It tells its result after it was listed as lost.
    trial = chosen(mine, space, first)[first]
    listed = mine.running()
    mine.tell(trial, known[first])
    with monkeypatch.context() as late:
        late.setattr(yours, "running", lambda: listed)
        assert yours.take_over()
    assert yours.reserve([], known) == {}
    assert told(yours) == [first]

    # It is stopped right before the result is written: that one counts under another trial.
    trial = chosen(mine, space, second)[second]
    tell = mine._study.tell
    with monkeypatch.context() as stopped:
        stopped.setattr(mine._study, "tell", lambda *args, **named: (yours.take_over(), tell(*args, **named)))
        mine.tell(trial, known[second])
    assert yours.reserve([], known) == {}
    assert told(yours) == [first, second]

    # Another one, that was stopped in its own turn, puts it into the queue once more while it is measured.
    chosen(mine, space, third)
    listed = mine.running()
    assert yours.take_over()
    assert set(yours.reserve([], {})) == {third}
    with monkeypatch.context() as late:
        late.setattr(mine, "running", lambda: listed)
        assert mine.take_over()
    assert mine.reserve([], {}) == {}
    assert told(yours) == [first, second]
    [running] = yours.running()
    assert yours.policies([running]) == [third]


def test_a_measurement_that_failed_is_known_to_all(space: Space, tmp_path: Path) -> None:
    policy = Policy.withdraw(5)
    failed = Row(Measurement(task="t", policy=policy, layer=5, failure="out of memory"), ())
    mine, yours = (board_of(tmp_path, number, space) for number in (0, 1))
    mine.tell(chosen(mine, space, policy)[policy], failed)
    assert told(yours) == [policy]
    assert [copy_of(trial).state for trial in yours.measured().values()] == [TrialState.FAIL]
    assert not yours.take_over()


def test_what_its_worker_alone_has_measured_is_told_when_it_comes_up_again(space: Space, tmp_path: Path) -> None:
    """The worker that took it over died before it measured it; a third one has to learn of it."""
    policy = Policy.withdraw(5)
    mine, yours = (board_of(tmp_path, number, space) for number in (0, 1))
    trial = chosen(mine, space, policy)[policy]
    assert yours.take_over()
    mine.tell(trial, row_of(policy))
    assert mine.measured() == {}
    assert mine.reserve([], {policy: row_of(policy)}) == {}
    assert told(yours) == [policy]
