"""Exploring a space that is too large to enumerate: Optuna proposes, the engine scores whole batches.

Optuna only guides: what was measured before, in this search or another, is told to it from the stored rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna

from vtw_search.errors import unknown_name
from vtw_search.policies import Policy
from vtw_search.results import Row
from vtw_search.search.space import Space

# Every choice by Optuna may repeat an earlier one, which costs nothing; this many in a row mean that it has converged.
_MOST_REPEATS = 20


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
    if settings.name not in SAMPLERS:
        raise unknown_name("sampler", settings.name, SAMPLERS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = SAMPLERS[settings.name](settings.seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    known = {row.measurement.policy: row for row in measure([Policy.keep_all(), *seeds])}
    for name, parameters in space.values.items():
        study.enqueue_trial({"recipe": name, **{f"{name}.{key}": values[0] for key, values in parameters.items()}})
    repeats = 0
    while len(known) < settings.trials and repeats < _MOST_REPEATS:
        trials = [study.ask() for _ in range(settings.batch)]
        proposed = [_proposal(trial, space) for trial in trials]
        room = settings.trials - len(known)
        fresh = list(dict.fromkeys(policy for policy in proposed if policy is not None and policy not in known))[:room]
        repeats = 0 if fresh else repeats + 1
        known |= {row.measurement.policy: row for row in (measure(fresh) if fresh else [])}
        for trial, policy in zip(trials, proposed, strict=True):
            _tell(study, trial, known.get(policy) if policy is not None else None)
    return list(known)


def _proposal(trial: optuna.Trial, space: Space) -> Policy | None:
    name = str(trial.suggest_categorical("recipe", list(space.values)))
    chosen = {
        key: trial.suggest_categorical(f"{name}.{key}", list(values)) for key, values in space.values[name].items()
    }
    return space.policy(name, chosen)


def _tell(study: optuna.Study, trial: optuna.Trial, row: Row | None) -> None:
    if row is None or row.measurement.failure is not None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    for judgement in row.judgements:
        trial.set_constraint(judgement.limit, judgement.excess)
    if row.measurement.stopped is not None:
        trial.set_constraint("raced_out", 1.0)
    study.tell(trial, [float(row.measurement.accuracy or 0.0), float(row.measurement.macs or 0)])
