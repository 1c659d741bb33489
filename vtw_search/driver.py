"""`run_search`: from a configuration to a policy file, the steps in order."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from vtw_search.config import SearchConfig, TaskSettings
from vtw_search.engine import check_images
from vtw_search.errors import ConfigError
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import SPLITS, Splits, make_splits
from vtw_search.evaluation.tasks import load_pools
from vtw_search.files import write_text_atomically
from vtw_search.policies import Policy, PolicySet, save_policy
from vtw_search.progress import WorkProgress
from vtw_search.records import export_records
from vtw_search.report import study_table, write_report
from vtw_search.results import StudyResult
from vtw_search.search.answer import choose, judged_rows, keep_all_instead
from vtw_search.search.certificate import model_certificate
from vtw_search.search.export import policy_set
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.limits import Limits, limits_for_task
from vtw_search.search.space import withdrawal_candidates
from vtw_search.search.study import SEARCH_SPLITS, Study, StudySettings
from vtw_search.search.trials import record_trials
from vtw_search.tracking import MlflowTracker, NoTracker, Tracker, TrackingSettings, redact

# What must not change when a search is continued under its name: its records would no longer be one search's.
_FIXED = ("model", "seed", "samples")


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind.

    Attributes:
        folder: `runs/<search>`.
        policy_file: the exported policies.
        policies: its content.
        studies: one result per task.
    """

    folder: Path
    policy_file: Path
    policies: PolicySet
    studies: tuple[StudyResult, ...]


def run_search(config: SearchConfig, console: Console | None = None) -> SearchResult:
    """Search a policy for every task of `config`; the same search continues where it was stopped.

    Args:
        config: as `vtw_search.config.load_config` returns it.
        console: where progress and tables go; stdout by default.

    Raises:
        VtwError: a subclass says what is wrong with the configuration, the model, the data or the disk.
    """
    console = console or Console()
    folder = Path(config.runs) / config.search_name
    console.print(f"loading {', '.join(config.named_tasks)} and {config.model.path}", highlight=False)
    splits = {name: _load_splits(task, config) for name, task in config.named_tasks.items()}
    loaded = _load_model(config)
    candidates = withdrawal_candidates(loaded.facts, config.space.first_layer, config.space.last_layer)
    tracker = _make_tracker(config, folder, console)
    _save_config(config, folder)
    certificate = model_certificate(loaded, folder, lambda text: console.print(text, highlight=False))
    console.print(f"search [bold]{config.search_name}[/] in {folder}", highlight=False)
    console.print(_sample_counts(splits), highlight=False)
    tracker.start(config.model_dump(mode="json"), _command())
    try:
        with WorkProgress(console) as progress:
            studies = tuple(
                _run_study(config, folder, Study(loaded, split, _study_settings(config, name), progress), candidates)
                for name, split in splits.items()
            )
        policies = policy_set(loaded.facts.fingerprint, studies, splits, _provenance(config, loaded), certificate)
        reports = write_report(studies, folder / "report")
        policy_file = save_policy(policies, folder / "policy.json")
        for study in studies:
            tracker.log_study(study, [*reports[study.task], *sorted(Path(study.records).iterdir())])
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.finish("FINISHED", [*reports[""], policy_file, folder / "config.yaml"])
    _show(console, studies, policy_file)
    return SearchResult(folder, policy_file, policies, studies)


def _run_study(config: SearchConfig, folder: Path, study: Study, candidates: Sequence[Policy]) -> StudyResult:
    """Measure all candidates of one task, choose, and measure the choice on the holdout."""
    name, limits = study.settings.task, _limits(config, study.settings.task)
    store = study.measure(candidates)
    answer = choose(judged_rows(store, candidates, limits))
    record_trials(folder / "optuna.db", name, answer.rows, limits, study.identity(SEARCH_SPLITS))
    holdout = _measure_holdout(config, study, answer.chosen.measurement.policy)
    if "failure" in holdout:
        answer = keep_all_instead(answer, f"failed on the holdout: {holdout['failure']}")
        holdout = _measure_holdout(config, study, answer.chosen.measurement.policy)
    records = folder / "records" / name
    export_records(store.samples(), [row.measurement for row in answer.rows], records)
    return StudyResult(
        task=name,
        rows=answer.rows,
        limits=limits.as_dict(),
        chosen=answer.chosen,
        verdict=answer.verdict,
        holdout=holdout,
        identity=study.identity(SEARCH_SPLITS),
        records=str(records),
    )


def _measure_holdout(config: SearchConfig, study: Study, policy: Policy) -> dict[str, Any]:
    """Return the policy's numbers on the holdout, and how often that holdout was looked at."""
    ledger, task = HoldoutLedger(Path(config.runs)), study.settings.task
    if not study.holdout_is_known(policy):
        # Before the look, so that a process that is killed during it has been counted.
        ledger.add(config.search_name, task, study.splits.digest("holdout"), policy.label())
    return {**study.measure_holdout(policy), "evaluations_of_this_holdout": ledger.count(task)}


def _study_settings(config: SearchConfig, name: str) -> StudySettings:
    return StudySettings(
        task=name,
        max_new_tokens=config.named_tasks[name].max_new_tokens,
        batch_size=config.batch_size,
        repeats=config.profile.repeats,
        warmup=config.profile.warmup,
        store=Path(config.runs) / "_records",
    )


def _load_splits(task: TaskSettings, config: SearchConfig) -> Splits:
    pools = load_pools(task.source, task.options)
    splits = make_splits(pools, config.seed, {"confirmation": 0, **config.samples.model_dump()})
    check_images(sample for split in SPLITS for sample in splits[split])
    return splits


def _load_model(config: SearchConfig) -> LoadedModel:
    model = config.model
    return load_model(
        model.path, revision=model.revision, device=model.device, dtype=model.dtype, attention=model.attention
    )


def _limits(config: SearchConfig, name: str) -> Limits:
    override = config.limits.per_task.get(name)
    return limits_for_task(
        config.limits.model_dump(exclude={"per_task"}),
        config.named_tasks[name].limits.model_dump(),
        override.model_dump(exclude_unset=True) if override else {},
    )


def _make_tracker(config: SearchConfig, folder: Path, console: Console) -> Tracker:
    tracking = config.tracking
    if tracking.uri is None:
        return NoTracker()
    settings = TrackingSettings(tracking.uri, tracking.experiment, tracking.timeout_s)
    return MlflowTracker(
        settings, config.search_name, folder, config.sweep,
        warn=lambda message: console.print(f"[yellow]warning:[/] {message}", highlight=False),
    )  # fmt: skip


def _save_config(config: SearchConfig, folder: Path) -> None:
    """Save the configuration before anything runs; refuse to continue a search that was another one."""
    path, content = folder / "config.yaml", config.model_dump(mode="json")
    content["tracking"]["uri"] = config.tracking.uri and redact(config.tracking.uri)
    if path.exists():
        before = yaml.safe_load(path.read_text())
        changed = [key for key in _FIXED if before.get(key) != content[key]]
        if changed:
            raise ConfigError(
                f"search {config.search_name!r} exists with another {' and '.join(changed)}",
                value={key: content[key] for key in changed},
                remedy="choose another search=<name>; limits, tasks and tracking may change under the same name",
            )
    write_text_atomically(path, yaml.safe_dump(content, sort_keys=False))


def _provenance(config: SearchConfig, loaded: LoadedModel) -> dict[str, Any]:
    packages = ("vtw-search", "torch", "transformers", "optuna", "fvcore")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "search": config.search_name,
        "seed": config.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "settings": dict(loaded.identity),
    }


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *map(redact, sys.argv[1:])])


def _sample_counts(splits: dict[str, Splits]) -> str:
    counts = [
        f"{name} " + "/".join(str(len(task[split])) for split in ("calibration", "selection", "holdout"))
        for name, task in splits.items()
    ]
    return "samples for calibration/selection/holdout: " + ", ".join(counts)


def _show(console: Console, studies: Sequence[StudyResult], policy_file: Path) -> None:
    for study in studies:
        console.print()
        console.print(study_table(study))
        console.print(f"[bold]{study.task}[/]: {study.verdict}", highlight=False)
        console.print(_holdout_text(study), highlight=False)
    report = policy_file.parent / "report"
    console.print(f"\npolicy file: [bold]{policy_file}[/]; pictures and tables: {report}", highlight=False)


def _holdout_text(study: StudyResult) -> str:
    numbers = study.holdout
    low, high = numbers["accuracy_drop_low"], numbers["accuracy_drop_high"]
    scores = f"accuracy {numbers['accuracy']:.3f} against {numbers['reference_accuracy']:.3f}"
    drop = f"drop {numbers['accuracy_drop']:.3f} ({low:.3f} to {high:.3f})"
    return f"holdout, {numbers['samples']} samples: {scores}, {drop}"
