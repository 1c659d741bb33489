"""From study results to the content of a policy file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vtw_search.evaluation.splits import SPLITS, Splits
from vtw_search.facts import ModelFingerprint
from vtw_search.policies import Certificate, Policy, PolicySet, TaskPolicy, save_policy
from vtw_search.results import Baseline, Confirmation, Row, StudyResult
from vtw_search.search.judge import COSTS
from vtw_search.transfer import SharedPolicy, Sharing


def policy_set(
    model: ModelFingerprint, studies: Sequence[StudyResult], splits: Mapping[str, Splits],
    provenance: Mapping[str, Any], certificate: Certificate | None = None, sharing: Sharing | None = None, *,
    shared_default: bool = False,
) -> PolicySet:  # fmt: skip
    """Return the policies of all tasks with their numbers; tasks that are not listed keep every token.

    Args:
        model: which the policies are for.
        studies: one per task.
        splits: of every task, for the digests of the data.
        provenance: who made this, with what.
        certificate: of a model whose family has no adapter of its own.
        sharing: one policy for all tasks, which has looked at the holdouts as well.
        shared_default: whether tasks that are not listed get that one; its evidence goes into the provenance.
    """
    tasks = {study.task: _task_policy(study, splits[study.task]) for study in studies}
    shared = None if sharing is None else sharing.shared
    looked = {study.task: study.holdout for study in studies} if shared is None else shared.holdout
    origin = {**provenance, "holdout_ledger": _looks(looked)}
    if sharing is not None and shared_default:
        origin["default"] = {name: value for name, value in sharing.as_dict().items() if name != "transfer"}
    return PolicySet(
        model=model, default=shared.policy if shared is not None and shared_default else Policy.keep_all(), tasks=tasks,
        certificate=certificate, provenance=origin,
    )  # fmt: skip


def shared_policy_set(policies: PolicySet, sharing: Sharing, shared: SharedPolicy) -> PolicySet:
    """Return a file whose one policy is for every task, the default included.

    Args:
        policies: of all tasks, for the limits, the data and the origin.
        sharing, shared: what was found.
    """
    tasks = {
        task: TaskPolicy(
            policy=shared.policy,
            verdict=sharing.verdict,
            limits=own.limits,
            measured=_measured(shared.rows[task], sharing.confirmation, shared.holdout[task])
            | _noise(own.measured.get("noise_floor", {}), shared.noise.get(task, {})),
            dataset_digests=own.dataset_digests,
        )
        for task, own in policies.tasks.items()
    }
    return policies.model_copy(update={"default": shared.policy, "tasks": tasks})


def _looks(holdouts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return how often each task's holdout was looked at by then."""
    return {task: int(numbers["evaluations_of_this_holdout"]) for task, numbers in holdouts.items()}


def save_shared(policies: PolicySet, sharing: Sharing | None, path: Path) -> list[Path]:
    """Write the file whose one policy is for every task; without such a policy, none stays from an earlier run."""
    if sharing is None or sharing.shared is None:
        path.unlink(missing_ok=True)
        return []
    return [save_policy(shared_policy_set(policies, sharing, sharing.shared), path)]


def _task_policy(study: StudyResult, splits: Splits) -> TaskPolicy:
    measured = _measured(study.chosen, study.confirmation, study.holdout)
    measured |= _noise(study.noise, study.policy_noise)
    measured |= {"racing": asdict(study.racing)} if study.racing else {}
    measured |= {"baselines": _baselines(study.baselines)} if study.baselines else {}
    return TaskPolicy(
        policy=study.chosen.measurement.policy,
        verdict=study.verdict,
        limits=dict(study.limits),
        measured=measured,
        dataset_digests={split: splits.digest(split) for split in SPLITS if splits[split]},
    )


def _measured(row: Row, confirmation: Confirmation | None, holdout: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the numbers of one policy per split, and its profile."""
    numbers = row.measurement.model_dump(exclude={"task", "policy", "failure", "layer", "versions"}, exclude_none=True)
    profile = {name: value for name, value in numbers.items() if name in COSTS}
    quality = {name: value for name, value in numbers.items() if name not in profile}
    tested = {} if confirmation is None else {"confirmation": confirmation.as_dict()}
    return {"search": quality, **tested, "holdout": dict(holdout), "profile": profile}


def _noise(floor: Mapping[str, Any], policy: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: dict(noise) for name, noise in (("noise_floor", floor), ("policy_noise", policy)) if noise}


def _baselines(baselines: Sequence[Baseline]) -> dict[str, Any]:
    return {
        each.row.measurement.policy.label(): {
            "accuracy": each.row.measurement.accuracy, "macs": each.row.measurement.macs,
            "advantage": each.advantage, "advantage_low": each.low, "advantage_high": each.high,
        }
        for each in baselines
    }  # fmt: skip
