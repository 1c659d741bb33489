"""From study results to the content of a policy file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vtw_search.evaluation.splits import SPLITS, Splits
from vtw_search.facts import ModelFingerprint
from vtw_search.policies import Certificate, PolicySet, TaskPolicy
from vtw_search.results import StudyResult


def policy_set(
    model: ModelFingerprint, studies: Sequence[StudyResult], splits: Mapping[str, Splits],
    provenance: Mapping[str, Any], certificate: Certificate | None = None,
) -> PolicySet:  # fmt: skip
    """Return the policies of all tasks with their numbers; tasks that are not listed keep every token.

    Args:
        model: which the policies are for.
        studies: one per task.
        splits: of every task, for the digests of the data.
        provenance: who made this, with what.
        certificate: of a model whose family has no adapter of its own.
    """
    ledger = {study.task: study.holdout["evaluations_of_this_holdout"] for study in studies}
    tasks = {study.task: _task_policy(study, splits[study.task]) for study in studies}
    return PolicySet(
        model=model, tasks=tasks, certificate=certificate, provenance={**provenance, "holdout_ledger": ledger}
    )


def _task_policy(study: StudyResult, splits: Splits) -> TaskPolicy:
    measurement = study.chosen.measurement
    numbers = measurement.model_dump(exclude={"task", "policy", "failure", "layer"}, exclude_none=True)
    profile = {
        name: value for name, value in numbers.items() if "macs" in name or "latency" in name or "tokens" in name
    }
    quality = {name: value for name, value in numbers.items() if name not in profile}
    return TaskPolicy(
        policy=measurement.policy,
        verdict=study.verdict,
        limits=dict(study.limits),
        measured={"search": quality, **_tested(study), "holdout": dict(study.holdout), "profile": profile},
        dataset_digests={split: splits.digest(split) for split in SPLITS if splits[split]},
    )


def _tested(study: StudyResult) -> dict[str, dict[str, Any]]:
    tested = {} if study.confirmation is None else {"confirmation": study.confirmation.as_dict()}
    baselines = {
        each.row.measurement.policy.label(): {
            "accuracy": each.row.measurement.accuracy, "macs": each.row.measurement.macs,
            "advantage": each.advantage, "advantage_low": each.low, "advantage_high": each.high,
        }
        for each in study.baselines
    }  # fmt: skip
    tested |= {"noise_floor": dict(study.noise)} if study.noise else {}
    tested |= {"racing": asdict(study.racing)} if study.racing else {}
    return tested | ({"baselines": baselines} if baselines else {})
