"""Exploring a space that is too large to enumerate with several workers.

Each worker has a sampler of its own, which is told what all of them measured. They choose in turn, so that no policy is
measured twice and no more than were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import optuna

from vtw_search.policies import Policy
from vtw_search.results import Row
from vtw_search.search.board import Board, copy_of
from vtw_search.search.sampling import MOST_REPEATS, SamplerSettings, make_study, propose, tell, tell_starts
from vtw_search.search.space import Space
from vtw_search.search.team import Team

Measure = Callable[[Sequence[Policy]], list[Row]]


def explore_together(
    space: Space, settings: SamplerSettings, seeds: Sequence[Policy], measure: Measure, board: Board, team: Team
) -> list[Policy]:
    """Return the policies that all workers have measured: keep-all first, then by their stages.

    May be broken off anywhere and begun again.

    Args:
        space, settings, seeds, measure: as for `explore`; `trials` counts the policies of all workers.
        board: what the workers know of each other.
        team: this worker.
    """
    worker = _Explorer(space, settings, measure, board, seeds)
    while True:
        with team.turn("choose"):
            worker.catch_up()
            mine = worker.choose()
            if not mine and worker.is_over:
                board.end(settings.trials)
                return worker.policies()
        worker.measure(mine)
        if not mine and not worker.has_room:
            team.sleep(team.pause_s)


class _Explorer:
    """A sampler, the rows that it knows, and its candidates on the board."""

    def __init__(
        self, space: Space, settings: SamplerSettings, measure: Measure, board: Board, seeds: Sequence[Policy]
    ) -> None:
        self._space, self._settings, self._measure, self._board = space, settings, measure, board
        # A worker that begins again must not propose once more what it proposed before.
        self._study = make_study(replace(settings, seed=settings.seed + 7919 * len(board.measured())))
        self._known = self._rows([Policy.keep_all(), *seeds])
        tell_starts(self._study, space, self._known)
        self._seen: set[int] = set()
        self._chosen: dict[Policy, list[optuna.Trial]] = {}
        self._repeats = self._running = 0
        self._taken: list[Policy] = []

    def catch_up(self) -> None:
        """Learn what others measured, and put what lost its worker back into the queue."""
        lost = self._board.take_over()
        # Before the results are read: others tell theirs at any time, and what is in neither would be chosen again.
        running = self._board.running()
        self._running, self._taken = len(running), self._board.policies(running)
        news = {number: trial for number, trial in self._board.measured().items() if number not in self._seen}
        self._repeats = 0 if lost or news else self._repeats
        self._seen |= set(news)
        self._known |= self._rows(
            [each for each in self._board.policies(list(news.values())) if each not in self._known]
        )
        for trial in news.values():
            self._study.add_trial(copy_of(trial))

    @property
    def has_room(self) -> bool:
        """Whether more policies may be chosen."""
        ended = self._board.ended_at() == self._settings.trials
        return self._room > 0 and self._repeats < MOST_REPEATS and not ended

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to choose and nobody is measuring."""
        return not self.has_room and not self._running

    @property
    def _room(self) -> int:
        return self._settings.trials - len(self._known) - self._running

    def choose(self) -> dict[Policy, optuna.Trial]:
        """Return what to measure next, reserved for this worker."""
        self._chosen = {}
        # What lost its worker comes first: chosen beside it, new ones would be more than there is room for.
        if self.has_room and not self._board.has_queue:
            self._chosen = propose(self._study, self._space, self._settings, self._known, self._taken, self._room)
            self._repeats = 0 if self._chosen else self._repeats + 1
        own = self._study.get_trials(deepcopy=False)
        return self._board.reserve([own[trials[0].number] for trials in self._chosen.values()], self._known)

    def measure(self, mine: dict[Policy, optuna.Trial]) -> None:
        """Measure reserved policies, and tell both studies."""
        self._known |= self._rows(list(mine))
        for policy, trial in mine.items():
            self._board.tell(trial, self._known[policy])
            if policy in self._chosen:
                self._seen.add(trial.number)
        for policy, trials in self._chosen.items():
            for trial in trials:
                # Without a row where another worker has it: this one was stopped in its turn.
                tell(self._study, trial, self._known.get(policy))

    def policies(self) -> list[Policy]:
        """Return all that were measured, in an order that does not depend on the worker."""
        others = [policy for policy in self._known if not policy.is_keep_all]
        others.sort(key=lambda policy: ([stage.layer for stage in policy.stages], policy.label(), policy.digest()))
        return [Policy.keep_all(), *others]

    def _rows(self, policies: Sequence[Policy]) -> dict[Policy, Row]:
        return {row.measurement.policy: row for row in self._measure(policies)} if policies else {}
