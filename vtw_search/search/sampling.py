"""Exploring a space that is too large to enumerate: Optuna proposes, the engine scores whole batches.

Optuna only guides: what was measured before, in this search or another, is told to it from the stored rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import optuna

from vtw_search.errors import unknown_name
from vtw_search.policies import Policy
from vtw_search.results import Row
from vtw_search.search.space import Space

# Every choice by Optuna may repeat an earlier one, which costs nothing; this many in a row mean that it has converged.
MOST_REPEATS = 20


@dataclass(frozen=True)
class SamplerSettings:
    """How a space is explored.

    Attributes:
        name: of the sampler.
        trials: distinct policies to measure, seeds included.
        batch: proposals per round, which are scored together.
        seed: of the sampler.
    """

    name: str
    trials: int
    batch: int
    seed: int


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}


def explore(
    space: Space, settings: SamplerSettings, seeds: Sequence[Policy], measure: Callable[[Sequence[Policy]], list[Row]]
) -> list[Policy]:
    """Return the policies that were measured, keep-all first, then in the order of their proposal.

    Args:
        space: what may be chosen.
        settings: how.
        seeds: measured before the sampler starts; keep-all is always one.
        measure: brings the given policies up to date and returns their judged rows, in order.

    Raises:
        UnknownNameError: there is no such sampler.
    """
    study = make_study(settings)
    known = {row.measurement.policy: row for row in measure([Policy.keep_all(), *seeds])}
    enqueue_defaults(study, space)
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


def enqueue_defaults(study: optuna.Study, space: Space) -> None:
    """Let a study begin with every recipe as it was published, whose rows are known."""
    for name, parameters in space.values.items():
        study.enqueue_trial({"recipe": name, **{f"{name}.{key}": values[0] for key, values in parameters.items()}})


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
    chosen: dict[Policy, list[optuna.Trial]] = {}
    for trial in [study.ask() for _ in range(settings.batch)]:
        policy = policy_of(trial, space)
        free = policy is not None and policy not in known and policy not in taken
        if policy is not None and (policy in chosen or (free and len(chosen) < room)):
            chosen.setdefault(policy, []).append(trial)
        else:
            tell(study, trial, None if policy is None else known.get(policy))
    return chosen


def policy_of(trial: optuna.trial.BaseTrial, space: Space) -> Policy | None:
    """Return the policy of a trial's parameters; None where they do not go together."""
    name = str(trial.suggest_categorical("recipe", list(space.values)))
    chosen = {
        key: trial.suggest_categorical(f"{name}.{key}", list(values)) for key, values in space.values[name].items()
    }
    return space.policy(name, chosen)


def tell(study: optuna.Study, trial: optuna.Trial, row: Row | None) -> None:
    """Store a measured row; without one, or with a failed one, the trial fails."""
    if row is None or row.measurement.failure is not None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    for judgement in row.judgements:
        trial.set_constraint(judgement.limit, judgement.excess)
    if row.measurement.stopped is not None:
        trial.set_constraint("raced_out", 1.0)
    study.tell(trial, [float(row.measurement.accuracy or 0.0), float(row.measurement.macs or 0)])
