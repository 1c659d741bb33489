"""The Optuna study of a task: candidates and their results as trials, so that Optuna's own tools read them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from vtw_search.results import Row
from vtw_search.search.limits import Limits
from vtw_search.versions import versions_of


def record_trials(
    storage: optuna.storages.BaseStorage, task: str, rows: Sequence[Row], limits: Limits, identity: Mapping[str, Any]
) -> optuna.Study:
    """Store rows as trials of a study; rows that are there are not added again.

    Its name is made of task, limits, identity and the versions of the operators and scorers of the rows.

    What was stopped early, or lacks a time that is needed, is a pruned trial; measured completely later, it is another.

    A study belongs to one set of limits, because trials carry their constraints; other limits make another study from
    the same rows. Values are accuracy (to maximize) and macs (to minimize).
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    versions = versions_of(*(row.measurement.policy for row in rows))
    decisive = json.dumps([limits.as_dict(), identity, versions], sort_keys=True)
    name = f"{task} {hashlib.sha256(decisive.encode()).hexdigest()[:8]}"
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )
    with warnings.catch_warnings():
        # Names for Optuna's dashboard; nothing depends on them if the call should change.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["accuracy", "macs"])
    study.set_user_attr("limits", limits.as_dict())
    known = {
        (trial.user_attrs["policy"], trial.state == TrialState.PRUNED) for trial in study.get_trials(deepcopy=False)
    }
    highest = max(row.measurement.layer for row in rows)
    for row in rows:
        if (row.measurement.policy.digest(), _is_pruned(row)) not in known:
            study.add_trial(_trial(row, IntDistribution(0, highest)))
    return study


def _trial(row: Row, layers: IntDistribution) -> FrozenTrial:
    measurement, pruned = row.measurement, _is_pruned(row)
    state = TrialState.FAIL if measurement.failure else TrialState.PRUNED if pruned else TrialState.COMPLETE
    numbers = measurement.model_dump(exclude={"policy", "task", "layer", "versions", "metrics"}, exclude_none=True)
    return create_trial(
        state=state,
        values=[measurement.accuracy, measurement.macs] if state == TrialState.COMPLETE else None,  # type: ignore[list-item]
        params={"layer": measurement.layer},
        distributions={"layer": layers},
        user_attrs={"policy": measurement.policy.digest(), "label": measurement.policy.label(), **numbers},
        constraints={judgement.limit: judgement.excess for judgement in row.judgements},
    )


def _is_pruned(row: Row) -> bool:
    return row.measurement.stopped is not None or row.untimed is not None
