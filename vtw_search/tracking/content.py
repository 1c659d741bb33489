"""From results to what runs show: pure functions. The tags without a prefix are for people, to filter and to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vtw_search.ownership import current_user
from vtw_search.results import Row, StudyResult
from vtw_search.tracking.notes import candidate_note, search_note, study_note
from vtw_search.tracking.params import config_params, cut_params, flatten, numbers, redact
from vtw_search.tracking.store import RunContent
from vtw_search.transfer import Sharing

# Identity of a search (its folder) and of a candidate's policy; names may repeat, these do not.
KEY_TAG, POLICY_TAG = "vtw.key", "vtw.policy"
KIND_TAG, TASK_TAG = "kind", "task"
_NOTE_TAG = "mlflow.note.content"

# What a search and a study show of their chosen candidates.
_SUMMARY = (
    "layer", "accuracy", "accuracy_drop", "agreement", "kl_answer_nats", "macs", "macs_ratio", "latency_ms",
    "latency_ratio",
)  # fmt: skip


@dataclass(frozen=True)
class SearchLabel:
    """What all runs of a search share: its name, its key and the sweep it belongs to, if any."""

    search: str
    key: str
    sweep: str | None = None

    def tags(self, kind: str) -> dict[str, str]:
        """Return the tags of a run; `kind` is search, study or candidate."""
        sweep = {} if self.sweep is None else {"sweep": self.sweep}
        source = {"mlflow.source.name": "vtw-search", "mlflow.source.type": "LOCAL", "mlflow.user": current_user()}
        return {KIND_TAG: kind, "search": self.search, **sweep, **source}


def search_content(
    label: SearchLabel, config: Mapping[str, Any], command: str, studies: Sequence[StudyResult], status: str,
    sharing: Sharing | None = None,
) -> RunContent:  # fmt: skip
    """Return what the run of a search shows, with the studies that are known so far."""
    params = config_params(config)
    note = search_note(label.search, studies, cut_params(params), sharing)
    metrics = {f"{result.task}.{name}": value for result in studies for name, value in _summary(result).items()}
    return RunContent(
        label.search,
        label.tags("search") | {KEY_TAG: label.key, "command": redact(command), _NOTE_TAG: note},
        params,
        metrics | _shared(sharing),
        status,
    )


def _shared(sharing: Sharing | None) -> dict[str, float]:
    """Return what one policy for all tasks costs each of them, and all together."""
    if sharing is None or sharing.shared is None:
        return {}
    total = sharing.shared.total
    prices = {"shared": total} | {f"shared.{task}": price for task, price in sharing.shared.prices.items()}
    lost = {f"{name}.lost_macs": float(price.lost) for name, price in prices.items()}
    ratios = {f"{name}.lost_macs_ratio": price.lost_ratio for name, price in prices.items()}
    return lost | ratios | {"shared.macs_ratio": total.shared / total.keep_all}


def _summary(result: StudyResult) -> dict[str, float]:
    chosen = numbers(dict(result.chosen.measurement))
    held_out = {f"holdout.{name}": value for name, value in numbers(result.holdout).items()}
    noise = {f"noise_floor.{name}": value for name, value in numbers(result.noise).items()}
    noise |= {f"policy_noise.{name}": value for name, value in numbers(result.policy_noise).items()}
    racing = numbers({} if result.racing is None else asdict(result.racing))
    raced = {f"racing.{name}": value for name, value in racing.items()}
    return {name: chosen[name] for name in _SUMMARY if name in chosen} | _tested(result) | held_out | noise | raced


def _tested(result: StudyResult) -> dict[str, float]:
    """Return the upper bounds that the chosen policy was confirmed by, and the size of that test."""
    if result.confirmation is None:
        return {}
    shown = result.confirmation.as_dict()
    bounds = {f"confirmation.{limit}_upper": float(test["upper"]) for limit, test in shown["tests"].items()}
    sizes = {f"confirmation.{name}": float(shown[name]) for name in ("level", "samples", "images")}
    return bounds | sizes | {"confirmation.confirmed": float(result.confirmation.winner is not None)}


def study_content(label: SearchLabel, result: StudyResult, shown: int, status: str) -> RunContent:
    """Return what the run of a study shows; `shown` candidates have a run of their own."""
    limits = {f"limit.{name}": str(value) for name, value in flatten(result.limits)}
    identity = {f"identity.{name}": redact(str(value)) for name, value in flatten(result.identity)}
    counts = {
        "candidates": len(result.rows),
        "candidates_feasible": sum(row.feasible for row in result.rows),
        "candidates_failed": sum(row.measurement.failure is not None for row in result.rows),
        "candidates_raced_out": sum(row.measurement.stopped is not None for row in result.rows),
        "candidates_on_front": sum(row.on_front for row in result.rows),
    }
    return RunContent(
        result.task,
        # Limits and identity are tags, not params: they may change between two runs of a search.
        label.tags("study")
        | {TASK_TAG: result.task, "policy": result.chosen.measurement.policy.label(), "status": result.verdict}
        | limits
        | identity
        | {_NOTE_TAG: study_note(result, shown)},
        {"task": result.task},
        _summary(result) | counts,
        status,
    )


def candidate_content(label: SearchLabel, result: StudyResult, row: Row) -> RunContent:
    """Return what the run of a candidate shows; the chosen one is marked in its name."""
    policy = row.measurement.policy
    flags = {"feasible": row.feasible, "on_front": row.on_front, "chosen": row.chosen}
    excess = {f"limit_excess.{judgement.limit}": judgement.excess for judgement in row.judgements}
    why = status_of(result, row)
    return RunContent(
        f"★ {policy.label()} (chosen)" if row.chosen else policy.label(),
        label.tags("candidate")
        | {TASK_TAG: result.task, POLICY_TAG: policy.digest(), "policy": policy.label(), "status": why}
        | {name: "yes" if value else "no" for name, value in flags.items()}
        | {_NOTE_TAG: candidate_note(result.task, row, why)},
        {"policy": policy.label(), "layer": str(row.measurement.layer)},
        numbers(dict(row.measurement)) | excess | {name: float(value) for name, value in flags.items()},
        "FINISHED" if row.measurement.failure is None else "FAILED",
    )


def status_of(result: StudyResult, row: Row) -> str:
    """Return in words why a candidate was chosen or was not."""
    if row.chosen:
        return f"chosen: {result.verdict}"
    if not row.feasible:
        return row.status
    return (
        "feasible, on the front"
        if row.on_front
        else "feasible, but another candidate is at least as good in accuracy and macs"
    )


def shown_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Return the candidates that get a run, most important first: the chosen one, keep-all, the front, the rest."""

    def rank(row: Row) -> int:
        wanted = (row.chosen, row.measurement.policy.is_keep_all, row.on_front, True)
        return wanted.index(True)

    return sorted(rows, key=rank)[:most]
