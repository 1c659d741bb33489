"""Several workers explore a space whose truth is a formula: nothing twice, nothing too much, nothing left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.search.test_sampling import row_of
from vtw_search import Policy
from vtw_search.evaluation.model import load_model
from vtw_search.facts import ModelFacts
from vtw_search.results import Row
from vtw_search.search.board import Board
from vtw_search.search.leases import FileLeases, LeaseHolder
from vtw_search.search.sampling import SamplerSettings, combination_of
from vtw_search.search.space import Space, make_space
from vtw_search.search.storage import make_storage
from vtw_search.search.team import Team
from vtw_search.search.together import explore_together

Measure = Callable[[Sequence[Policy]], list[Row]]


class _KilledError(BaseException):
    """Ends a worker where a kill would: nothing is given back."""


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return load_model("reference", device="cpu").facts


@pytest.fixture
def space(facts: ModelFacts) -> Space:
    return make_space(facts, {"himap": {}, "vtw": {}}, None)


class Measured:
    """Measures by the formula; knows what was measured by whom, as the records do."""

    def __init__(self) -> None:
        self.asked: list[Policy] = []

    def __call__(self, policies: Sequence[Policy]) -> list[Row]:
        new = [policy for policy in policies if policy not in self.asked]
        self.asked += new
        time.sleep(0.002 * len(new))
        return [row_of(policy) for policy in policies]


class MeasuredByTwo(Measured):
    """Measures what its worker chose first only once two workers have chosen: the formula is too quick to be shared."""

    _at_work = threading.Condition()

    def __init__(self, working: set[int], number: int) -> None:
        super().__init__()
        self._working, self._number = working, number

    def __call__(self, policies: Sequence[Policy]) -> list[Row]:
        if self.asked:  # the first call is for what every worker begins with
            with self._at_work:
                self._working.add(self._number)
                self._at_work.notify_all()
                assert self._at_work.wait_for(lambda: len(self._working) > 1, timeout=60), "the work was shared"
        return super().__call__(policies)


class Worker(threading.Thread):
    """One worker with a connection and leases of its own."""

    def __init__(
        self, folder: Path, kind: str, number: int, settings: SamplerSettings, space: Space, measure: Measure,
        lease_s: float = 30,
    ) -> None:  # fmt: skip
        super().__init__()
        self.folder, self.kind, self.number, self.lease_s = folder, kind, number, lease_s
        self.leases = FileLeases(folder / "leases.json")
        self.space, self.measure = space, measure
        self.settings = replace(settings, seed=settings.seed + number)
        self.found: list[Policy] = []

    def run(self) -> None:
        storage = make_storage(self.kind, self.folder, None, 20, lambda text: None)
        holder = LeaseHolder(self.leases, f"worker {self.number}", self.lease_s)
        holder.__enter__()
        team = Team(holder, pause_s=0.02)
        try:
            with team.turn("choose"):
                board = Board("study", storage.studies, self.space, team)
            seeds = self.space.defaults()
            self.found = explore_together(self.space, self.settings, seeds, self.measure, board, team)
        except _KilledError:
            holder._stop.set()  # a dead process renews nothing, and gives nothing back
            return
        holder.__exit__()


def run_all(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert not worker.is_alive()


def study_of(folder: Path, kind: str) -> optuna.Study:
    storage = make_storage(kind, folder, None, 20, lambda text: None)
    return optuna.load_study(study_name="study", storage=storage.studies)


def board_of(folder: Path, number: int, space: Space, kind: str = "sqlite") -> Board:
    """The board as a worker sees it to whom no other one is alive."""
    holder = LeaseHolder(FileLeases(folder / f"leases-{number}.json"), f"worker {number}", 30)
    return Board("study", make_storage(kind, folder, None, 20, lambda text: None).studies, space, Team(holder))


def measured_in(folder: Path, kind: str, space: Space) -> list[FrozenTrial]:
    """The trials with results, after seeing that no trial is left and no policy has two."""
    states = {trial.state for trial in study_of(folder, kind).trials}
    assert states <= {TrialState.COMPLETE, TrialState.FAIL}
    found = list(board_of(folder, 99, space, kind).measured().values())
    assert all(trial.values for trial in found)
    assert len({str(sorted(trial.params.items())) for trial in found}) == len(found), "a policy is on the board once"
    return found


@pytest.mark.parametrize("name,kind", [("tpe", "sqlite"), ("random", "journal"), ("nsga2", "sqlite")])
def test_workers_measure_what_was_asked_for_and_nothing_twice(
    name: str, kind: str, space: Space, tmp_path: Path
) -> None:
    working = set[int]()
    settings = SamplerSettings(name, 30, 8, 0)
    make = partial(Worker, tmp_path, kind)
    workers = [make(number, settings, space, MeasuredByTwo(working, number)) for number in range(3)]
    run_all(workers)
    assert workers[0].found == workers[1].found == workers[2].found
    assert len(workers[0].found) == len(set(workers[0].found)) == 30
    assert workers[0].found[0].is_keep_all
    own = [trial.user_attrs["worker"] for trial in measured_in(tmp_path, kind, space)]
    assert len(own) == 30 - 1 - len(space.defaults())
    assert len(set(own)) > 1, "the work was shared"


def test_a_worker_alone_continues_what_others_began(space: Space, tmp_path: Path) -> None:
    run_all([Worker(tmp_path, "sqlite", 0, SamplerSettings("tpe", 12, 8, 0), space, Measured())])
    more = Measured()
    [worker] = workers = [Worker(tmp_path, "sqlite", 0, SamplerSettings("tpe", 18, 8, 0), space, more)]
    run_all(workers)
    assert len(worker.found) == 18
    again = Measured()
    [last] = workers = [Worker(tmp_path, "sqlite", 1, SamplerSettings("tpe", 18, 8, 0), space, again)]
    run_all(workers)
    assert last.found == worker.found
    assert set(again.asked) == set(worker.found)
    measured_in(tmp_path, "sqlite", space)


# With a pool, a worker always finds as many new candidates as it has room for.
@pytest.mark.parametrize("pool", [0, 100])
def test_what_a_dead_worker_was_at_is_taken_over(pool: int, space: Space, tmp_path: Path) -> None:
    died, lost, settings = Measured(), set[Policy](), SamplerSettings("tpe", 20, 8, 0, pool)

    def dies(policies: Sequence[Policy]) -> list[Row]:
        if len(died.asked) >= 11:
            lost.update(policies)
            raise _KilledError
        return died(policies)

    victim = Worker(tmp_path, "sqlite", 0, settings, space, dies, lease_s=1.0)
    run_all([victim])
    running = [trial for trial in study_of(tmp_path, "sqlite").trials if not trial.state.is_finished()]
    assert len(running) == len(lost) > 0
    workers = [Worker(tmp_path, "sqlite", number, settings, space, Measured()) for number in (1, 2)]
    run_all(workers)
    assert len(workers[0].found) == 20
    assert lost <= set(workers[0].found), "another worker measured what the dead one was at"
    measured_in(tmp_path, "sqlite", space)


def test_a_small_space_ends_all_workers(facts: ModelFacts, tmp_path: Path) -> None:
    space = make_space(facts, {"vtw": {"layer": [2, 3, 4]}}, None)
    make = partial(Worker, tmp_path, "sqlite")
    workers = [make(number, SamplerSettings("tpe", 50, 4, 0), space, Measured()) for number in range(2)]
    run_all(workers)
    assert {policy.label() for policy in workers[0].found} == {"keep-all", "withdraw@2", "withdraw@3", "withdraw@4"}
    measured_in(tmp_path, "sqlite", space)


def test_a_worker_that_was_killed_while_it_wrote_its_proposal_is_survived(space: Space, tmp_path: Path) -> None:
    settings = SamplerSettings("tpe", 12, 4, 0)
    run_all([Worker(tmp_path, "sqlite", 0, settings, space, Measured())])
    study = study_of(tmp_path, "sqlite")
    study.ask()
    half = study.ask()
    half.suggest_categorical("recipe", list(space.values))
    [worker] = workers = [Worker(tmp_path, "sqlite", 1, settings, space, Measured())]
    run_all(workers)
    assert len(worker.found) >= 12
    measured_in(tmp_path, "sqlite", space)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_worker_that_is_stopped_for_longer_than_its_lease_goes_on(
    kind: str, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It measures what it had chosen, and so does the one that took that over; both end, with one result."""
    slept, other, settings = Measured(), Measured(), SamplerSettings("tpe", 24, 8, 0)
    again: list[Policy] = []

    def sleeps(policies: Sequence[Policy]) -> list[Row]:
        chose = len(slept.asked) >= 11 and not again
        rows = slept(policies)
        if chose:
            again.extend(policies)
            with monkeypatch.context() as stopped:
                # A stopped process renews nothing.
                stopped.setattr(first.leases, "renew", lambda owner, seconds: None)
                second.start()
                deadline = time.monotonic() + 60
                while not set(again) <= set(other.asked) and time.monotonic() < deadline:
                    time.sleep(0.02)
        return rows

    first = Worker(tmp_path, kind, 0, settings, space, sleeps, lease_s=0.5)
    second = Worker(tmp_path, kind, 1, settings, space, other)
    run_all([first])
    second.join(timeout=120)
    assert again
    assert set(again) <= set(other.asked), "the second worker took over what the first was at"
    assert first.found == second.found
    assert len(first.found) == len(set(first.found)) == 24
    assert len(measured_in(tmp_path, kind, space)) == 24 - 1 - len(space.defaults())


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_worker_that_is_killed_while_it_tells_its_result_leaves_one_trial_of_it(
    kind: str, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, end, killed = SamplerSettings("tpe", 20, 8, 0), optuna.Study.tell, list[int]()

    def dies(study: optuna.Study, trial: optuna.Trial, values: object = None, **named: object) -> object:
        if study.study_name == "study" and values is not None and not killed:
            killed.append(trial.number)
            raise _KilledError
        return end(study, trial, values, **named)

    monkeypatch.setattr(optuna.Study, "tell", dies)
    run_all([Worker(tmp_path, kind, 0, settings, space, Measured(), lease_s=0.5)])
    assert killed
    workers = [Worker(tmp_path, kind, number, settings, space, Measured()) for number in (1, 2)]
    run_all(workers)
    assert len(workers[0].found) == 20
    assert len(measured_in(tmp_path, kind, space)) == 20 - 1 - len(space.defaults())


def test_a_worker_that_is_stopped_in_its_turn_leaves_what_another_has_taken(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one dies with it, so that it comes back in the end."""
    ask, other, taken = optuna.Study.ask, board_of(tmp_path, 9, space), list[Policy]()

    def stops(study: optuna.Study, *args: object, **named: object) -> optuna.Trial:
        trial = ask(study, *args, **named)
        if study.study_name == "study" and not taken:
            combination_of(trial, space)
            taken.append(Policy.keep_all())
            assert other.take_over()
            taken[:] = other.reserve([], {})
        return trial

    monkeypatch.setattr(optuna.Study, "ask", stops)
    [worker] = workers = [Worker(tmp_path, "sqlite", 0, SamplerSettings("tpe", 16, 4, 0), space, Measured())]
    run_all(workers)
    assert set(taken) <= set(worker.found)
    assert len(worker.found) == 16
    measured_in(tmp_path, "sqlite", space)
