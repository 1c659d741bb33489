"""What the workers of a task know of each other's candidates: an Optuna study in the storage of the search.

Every candidate that a sampler chose is one trial of it, running while its worker measures it. A trial names its worker;
one whose worker is gone is put back into the queue. A worker that was only stopped for longer than its lease finds its
trials ended when it comes back, at whatever point: that changes nothing, since whoever took them over finds the rows in
the records.

How a trial ended says what became of it, so that its end is one write: complete, or pruned if the measurement failed,
is what was measured; failed is what was given up. One trial at most of a policy was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from vtw_search.policies import Policy
from vtw_search.results import Row
from vtw_search.search.sampling import policy_of, tell
from vtw_search.search.space import Space
from vtw_search.search.team import Team

_OWNER, _SAMPLER, _ENDED = "worker", "sampler", "ended at trials"
_MEASURED = TrialState.COMPLETE, TrialState.PRUNED


class Board:
    """The shared study of one task. Whoever changes it by more than telling a row waits for its turn first.

    Args:
        name: of the study.
        storage: that all workers use.
        space: what is chosen from.
        team: this worker.
    """

    def __init__(self, name: str, storage: optuna.storages.BaseStorage, space: Space, team: Team) -> None:
        self._space, self._team = space, team
        self._study = optuna.create_study(
            study_name=name, storage=storage, directions=["maximize", "minimize"], load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),
        )  # fmt: skip

    def take_over(self) -> bool:
        """Put the trials of workers that are gone back into the queue; returns whether there were any.

        This worker's own are from before it lost its connection: between its turns it has none.
        """
        alive = self._team.leases.table.owners() - {self._team.leases.owner}
        lost = [trial for trial in self.running() if trial.user_attrs.get(_OWNER) not in alive]
        for trial in lost:
            # In this order: whoever is killed in between leaves a trial that is put back once more, and then known.
            kept = {key: value for key, value in trial.user_attrs.items() if key == _SAMPLER}
            self._study.enqueue_trial(trial.params, user_attrs=kept)
            self._give_up(trial.number)
        return bool(lost)

    def measured(self) -> dict[int, FrozenTrial]:
        """Return the trials with results, by number."""
        return {trial.number: trial for trial in self._trials(*_MEASURED)}

    def running(self) -> list[FrozenTrial]:
        """Return the trials that workers are at."""
        return self._trials(TrialState.RUNNING)

    @property
    def has_queue(self) -> bool:
        """Whether candidates wait for a worker."""
        return bool(self._trials(TrialState.WAITING))

    def policies(self, trials: Sequence[FrozenTrial]) -> list[Policy]:
        """Return the policies of trials; those whose worker was gone before all was written have none."""
        found = (policy_of(trial, self._space) for trial in trials if self._is_whole(trial))
        return list(dict.fromkeys(policy for policy in found if policy is not None))

    def reserve(self, chosen: Sequence[FrozenTrial], known: Mapping[Policy, Row]) -> dict[Policy, optuna.Trial]:
        """Put chosen candidates on the board; returns what this worker is to measure, lost ones of others included.

        Args:
            chosen: by this worker's sampler.
            known: rows that were measured.
        """
        for own in chosen:
            self._study.enqueue_trial(own.params, user_attrs={_SAMPLER: own.system_attrs})
        found: dict[Policy, optuna.Trial] = {}
        while self.has_queue:
            trial = self._study.ask()
            with suppress(UpdateFinishedTrialError):  # this worker was stopped in its turn, and another took the trial
                trial.set_user_attr(_OWNER, self._team.leases.owner)
                policy = policy_of(trial, self._space)
                if policy is None or policy in self._before(trial):
                    self._give_up(trial)
                elif policy in known:
                    # By this worker alone: the trial under which it was measured was taken over.
                    self.tell(trial, known[policy])
                else:
                    found[policy] = trial
        return found

    def tell(self, trial: optuna.Trial, row: Row) -> None:
        """Store what was measured; a trial that was taken over meanwhile stays as it is."""
        with suppress(UpdateFinishedTrialError):
            if row.measurement.failure is None:
                tell(self._study, trial, row, skip_if_finished=True)
            else:
                self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)

    def ended_at(self) -> int | None:
        """Return for how many trials a worker has found that nothing is left to measure."""
        return self._study.user_attrs.get(_ENDED)

    def end(self, trials: int) -> None:
        """Let all workers stop."""
        self._study.set_user_attr(_ENDED, trials)

    def _give_up(self, trial: optuna.Trial | int) -> None:
        with suppress(UpdateFinishedTrialError):  # its worker came back and ended it
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _before(self, trial: optuna.Trial) -> list[Policy]:
        """Return the policies that are measured, or being measured, under earlier trials than this one."""
        found = self._trials(*_MEASURED, TrialState.RUNNING)
        return self.policies([each for each in found if each.number < trial.number])

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _is_whole(self, trial: FrozenTrial) -> bool:
        recipe = trial.params.get("recipe")
        return recipe is not None and all(f"{recipe}.{key}" in trial.params for key in self._space.values[recipe])


def copy_of(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial of the board as this worker's own sampler takes it."""
    return create_trial(
        state=TrialState.FAIL if trial.state == TrialState.PRUNED else trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=dict(trial.user_attrs.get(_SAMPLER, {})),
        constraints=trial.constraints,
    )
