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

from tests.search.test_sampling import row_of
from vtw_search import Policy
from vtw_search.evaluation.model import load_model
from vtw_search.facts import ModelFacts
from vtw_search.results import Row
from vtw_search.search.board import Board
from vtw_search.search.leases import FileLeases, LeaseHolder
from vtw_search.search.sampling import SamplerSettings, policy_of
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


def assert_nothing_is_left(study: optuna.Study) -> None:
    states = {trial.state for trial in study.trials}
    assert states <= {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL}


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
    study = study_of(tmp_path, kind)
    assert_nothing_is_left(study)
    own = [trial.user_attrs["worker"] for trial in study.trials if trial.user_attrs.get("measured")]
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
    assert_nothing_is_left(study_of(tmp_path, "sqlite"))


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
    assert_nothing_is_left(study_of(tmp_path, "sqlite"))


def test_a_small_space_ends_all_workers(facts: ModelFacts, tmp_path: Path) -> None:
    space = make_space(facts, {"vtw": {"layer": [2, 3, 4]}}, None)
    make = partial(Worker, tmp_path, "sqlite")
    workers = [make(number, SamplerSettings("tpe", 50, 4, 0), space, Measured()) for number in range(2)]
    run_all(workers)
    assert {policy.label() for policy in workers[0].found} == {"keep-all", "withdraw@2", "withdraw@3", "withdraw@4"}
    assert_nothing_is_left(study_of(tmp_path, "sqlite"))


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
    assert_nothing_is_left(study_of(tmp_path, "sqlite"))


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
    study = study_of(tmp_path, kind)
    assert_nothing_is_left(study)
    told = [trial for trial in study.trials if trial.user_attrs.get("measured")]
    assert len(told) == 24 - 1 - len(space.defaults())


def board_of(folder: Path, number: int, space: Space) -> Board:
    """The board as a worker sees it whose leases are all new to it."""
    holder = LeaseHolder(FileLeases(folder / "leases.json"), f"worker {number}", 30)
    return Board("study", make_storage("sqlite", folder, None, 20, lambda text: None).studies, space, Team(holder))


def chosen(board: Board, space: Space, policy: Policy) -> dict[Policy, optuna.Trial]:
    """Reserve a policy for the worker of a board."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = (study.ask() for _ in range(1000))
    trial = next(trial for trial in trials if policy_of(trial, space) == policy)
    return board.reserve([study.get_trials(deepcopy=False)[trial.number]], {})


def test_a_worker_may_come_back_at_any_point_of_a_take_over(space: Space, tmp_path: Path) -> None:
    policy = Policy.withdraw(5)
    row = row_of(policy)
    mine, yours = (board_of(tmp_path, number, space) for number in (0, 1))

    # It tells its result after it was listed as lost: there is one more trial, of what is then known.
    trial = chosen(mine, space, policy)[policy]
    listed = mine.running()
    mine.tell(trial, row)
    with pytest.MonkeyPatch.context() as late:
        late.setattr(yours, "running", lambda: listed)
        assert yours.take_over()
    assert yours.policies(list(yours.measured().values())) == [policy]
    assert yours.reserve([], {policy: row}) == {}

    # It has told half of it: others know that there is a result, and the trial stays failed.
    half = chosen(mine, space, policy)[policy]
    half.set_user_attr("measured", True)
    assert yours.take_over()
    mine.tell(half, row)
    assert yours.reserve([], {policy: row}) == {}
    assert_nothing_is_left(study_of(tmp_path, "sqlite"))


def test_what_its_worker_alone_has_measured_is_told_when_it_comes_up_again(space: Space, tmp_path: Path) -> None:
    """The worker that took it over died before it measured it; a third one has to learn of it."""
    policy = Policy.withdraw(5)
    mine, yours = (board_of(tmp_path, number, space) for number in (0, 1))
    trial = chosen(mine, space, policy)[policy]
    assert yours.take_over()
    mine.tell(trial, row_of(policy))
    assert mine.measured() == {}
    assert mine.reserve([], {policy: row_of(policy)}) == {}
    assert yours.policies(list(yours.measured().values())) == [policy]
