"""Exploring a space that is too large to enumerate: Optuna proposes, the engine scores whole batches.

Optuna only guides: what was measured before, in this search or another, is told to it from the stored rows. A proxy may
order its proposals among other combinations, drawn at random and next to the front.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from vtw_search.errors import unknown_name
from vtw_search.policies import Policy
from vtw_search.recipes import Value
from vtw_search.results import Row
from vtw_search.search.front import mark_front
from vtw_search.search.proxy import Proxy
from vtw_search.search.space import Combination, Space, are_numbers

# A round may have nothing new, which costs nothing; this many in a row mean that the space is as good as exhausted.
MOST_REPEATS = 20
# So many combinations are looked through before a round has nothing new: all of a space that is not larger.
LAST_LOOK = 10_000


@dataclass(frozen=True)
class SamplerSettings:
    """How a space is explored.

    Attributes:
        name: of the sampler.
        trials: distinct policies to measure, seeds included.
        batch: policies per round, which are scored together.
        seed: of the sampler.
        pool: combinations drawn at random for the proxy to order, beside the sampler's proposals and the neighbours of
            the front; 0 measures the proposals as they come, and random combinations in place of repeats.
    """

    name: str
    trials: int
    batch: int
    seed: int
    pool: int = 0


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}
# What `auto` is where a space is not enumerated.
DEFAULT_SAMPLER = "tpe"


def explore(
    space: Space, settings: SamplerSettings, seeds: Sequence[Policy], measure: Callable[[Sequence[Policy]], list[Row]]
) -> list[Policy]:
    """Return the policies that were measured, keep-all first, then in the order of their proposal.

    Args:
        space: what may be chosen.
        settings: how.
        seeds: measured before the sampler starts, and told to it if they lie in the space; keep-all is always one.
        measure: brings the given policies up to date and returns their judged rows, in order.

    Raises:
        UnknownNameError: there is no such sampler.
    """
    study = make_study(settings)
    known = {row.measurement.policy: row for row in measure(list(dict.fromkeys([Policy.keep_all(), *seeds])))}
    tell_starts(study, space, known)
    repeats = 0
    while len(known) < settings.trials and repeats < MOST_REPEATS:
        chosen = propose(study, space, settings, known, (), settings.trials - len(known))
        repeats = 0 if chosen else repeats + 1
        known |= {row.measurement.policy: row for row in (measure(list(chosen)) if chosen else [])}
        for policy, trials in chosen.items():
            for trial in trials:
                tell(study, trial, known[policy])
    return list(known)


def make_study(settings: SamplerSettings) -> optuna.Study:
    """Return a study in memory with Optuna's sampler.

    Raises:
        UnknownNameError: there is no such sampler.
    """
    if settings.name not in SAMPLERS:
        raise unknown_name("sampler", settings.name, SAMPLERS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = SAMPLERS[settings.name](settings.seed)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def tell_starts(study: optuna.Study, space: Space, known: Mapping[Policy, Row]) -> None:
    """Tell a study of the measured policies among those that a sampler starts from."""
    for policy, place in space.located(space.starts()).items():
        if policy in known:
            tell(study, _asked(study, space, place), known[policy])


def propose(
    study: optuna.Study, space: Space, settings: SamplerSettings, known: Mapping[Policy, Row],
    taken: Collection[Policy], room: int,
) -> dict[Policy, list[optuna.Trial]]:  # fmt: skip
    """Return at most `room` new policies with the trials that proposed them; the other trials of the round are told.

    Args:
        study, space, settings: whose sampler proposes what.
        known: rows that were measured.
        taken: policies that others are measuring.
        room: how many more may be measured.
    """
    proposed: dict[Policy | None, list[optuna.Trial]] = {}
    for trial in [study.ask() for _ in range(settings.batch)]:
        proposed.setdefault(policy_of(trial, space), []).append(trial)
    candidates = space.located(combination_of(trials[0], space) for trials in proposed.values())
    random = np.random.default_rng([settings.seed, len(known)])
    if settings.pool:
        candidates |= space.located([*_near_front(study, space, known), *space.draw(random, settings.pool)])
    else:
        # In place of repeats: a sampler that has converged proposes hardly anything else. Some of these repeat, too.
        candidates |= space.located(space.draw(random, 4 * settings.batch))
    fresh = _fresh(candidates, known, taken) or _fresh(space.located(space.draw(random, LAST_LOOK)), known, taken)
    chosen = _ordered(list(fresh), space, settings, known)[: min(settings.batch, room)]
    for policy, trials in proposed.items():
        for trial in trials if policy not in chosen else ():
            tell(study, trial, None if policy is None else known.get(policy))
    return {policy: proposed.get(policy) or [_asked(study, space, fresh[policy])] for policy in chosen}


def _fresh(
    candidates: Mapping[Policy, Combination], known: Collection[Policy], taken: Collection[Policy]
) -> dict[Policy, Combination]:
    return {policy: place for policy, place in candidates.items() if policy not in known and policy not in taken}


def _ordered(
    fresh: Sequence[Policy], space: Space, settings: SamplerSettings, known: Mapping[Policy, Row]
) -> Sequence[Policy]:
    """Return candidates as the proxy orders them, as many as a batch holds; as they are without a pool."""
    if not fresh or not settings.pool:
        return fresh
    rows = [row for row in known.values() if row.measurement.accuracy is not None and row.measurement.macs is not None]
    return Proxy(space.facts.num_layers, rows).best(fresh, settings.batch)


def _near_front(study: optuna.Study, space: Space, known: Mapping[Policy, Row]) -> Iterator[Combination]:
    """Yield the neighbours of the rows on the front that lie in the space."""
    front = {row.measurement.policy for row in mark_front(list(known.values())) if row.on_front}
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    for policy, place in space.located(combination_of(trial, space) for trial in trials).items():
        if policy in front:
            yield from space.near(*place)


def _asked(study: optuna.Study, space: Space, place: Combination) -> optuna.Trial:
    """Return a trial of a combination that the sampler did not propose. No other may wait in the study's queue."""
    recipe, chosen = place
    values = space.values[recipe]
    parameters = {f"{recipe}.{key}": _rank(values[key], value) for key, value in chosen.items()}
    study.enqueue_trial({"recipe": recipe, **parameters})
    trial = study.ask()
    combination_of(trial, space)
    return trial


def policy_of(trial: optuna.trial.BaseTrial, space: Space) -> Policy | None:
    """Return the policy of a trial's parameters; None where they do not go together."""
    return space.policy(*combination_of(trial, space))


def combination_of(trial: optuna.trial.BaseTrial, space: Space) -> Combination:
    """Return what a trial's parameters stand for. Numbers are suggested by their rank: samplers see which are close."""
    name = str(trial.suggest_categorical("recipe", list(space.values)))
    return name, {key: _suggest(trial, f"{name}.{key}", values) for key, values in space.values[name].items()}


def _suggest(trial: optuna.trial.BaseTrial, name: str, values: Sequence[Value]) -> Value:
    if are_numbers(values):
        return sorted(values)[trial.suggest_int(name, 0, len(values) - 1)]
    chosen: Any = trial.suggest_categorical(name, list(values))
    return values[list(values).index(chosen)]


def _rank(values: Sequence[Value], value: Value) -> Value:
    """Return what `_suggest` would suggest for a value."""
    return sorted(values).index(value) if are_numbers(values) else value


def tell(study: optuna.Study, trial: optuna.Trial, row: Row | None, *, skip_if_finished: bool = False) -> None:
    """Store a measured row; without one, or with a failed one, the trial fails.

    Args:
        study, trial, row: what is stored where.
        skip_if_finished: whether a trial that has ended stays as it is; an error otherwise.
    """
    if row is None or row.measurement.failure is not None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=skip_if_finished)
        return
    for judgement in row.judgements:
        trial.set_constraint(judgement.limit, judgement.excess)
    if row.measurement.stopped is not None:
        trial.set_constraint("raced_out", 1.0)
    if row.untimed is not None:
        trial.set_constraint("untimed", 1.0)
    values = [float(row.measurement.accuracy or 0.0), float(row.measurement.macs or 0)]
    study.tell(trial, values, skip_if_finished=skip_if_finished)
