"""`run_search`: from a configuration to a policy file, the steps in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from vtw_search.exploration import check_by_measuring, explored_alone, noise_of, racing_of
from vtw_search.policies import Policy, PolicySet, save_policy
from vtw_search.preparation import Prepared, limits_of, make_tracker, owned, prepare, search_folder
from vtw_search.progress import WorkProgress
from vtw_search.provenance import command_line, provenance
from vtw_search.records import KEY, Measured, export_records
from vtw_search.report import show_studies, write_report
from vtw_search.results import Baseline, StudyResult
from vtw_search.search.answer import (
    Answer,
    accuracy_warning,
    choose,
    confirmed,
    judged_rows,
    keep_all_instead,
    require_affordable,
    with_measurement,
)
from vtw_search.search.baselines import baselines_text, measured_baselines
from vtw_search.search.examination import Examination
from vtw_search.search.export import policy_set, save_shared
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.noise import noise_warning
from vtw_search.search.objective import objective_of
from vtw_search.search.saving import saving
from vtw_search.search.sharing import Member, share
from vtw_search.search.study import Study
from vtw_search.search.study_settings import SEARCH_SPLITS
from vtw_search.search.trials import record_trials
from vtw_search.settings import SearchConfig
from vtw_search.transfer import Sharing


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind.

    Attributes:
        folder: `runs/<search>`.
        policy_file: the exported policies.
        policies: its content.
        studies: one result per task.
        sharing: how they do on each other's tasks, and one policy for all; None for a single task.
    """

    folder: Path
    policy_file: Path
    policies: PolicySet
    studies: tuple[StudyResult, ...]
    sharing: Sharing | None = None


def run_search(config: SearchConfig, console: Console | None = None) -> SearchResult:
    """Search a policy for every task of `config`; the same search continues where it was stopped.

    Args:
        config: as `vtw_search.config.load_config` returns it.
        console: where progress and tables go; stdout by default.

    Raises:
        InUseError: another process runs the same search.
        VtwError: another subclass says what is wrong with the configuration, the model, the data or the disk.
    """
    console = console or Console()
    with owned(config, console) as owner:
        return finish_search(prepare(config, console, owner))


def finish_search(prepared: Prepared, explored: Mapping[str, Sequence[Policy]] | None = None) -> SearchResult:
    """Measure what is missing, choose, test and report.

    Args:
        prepared: the search.
        explored: candidates by task, where workers have chosen them together.
    """
    config, console, splits, loaded = prepared.config, prepared.console, prepared.splits, prepared.loaded
    folder = search_folder(config)
    tracker = make_tracker(config, folder, console)
    tracker.start(config.model_dump(mode="json", exclude={"worker", "wait_s"}), command_line())
    try:
        with WorkProgress(console) as progress:
            tasks = {name: prepared.study(name, progress) for name in splits}
            for each in tasks.values():
                check_by_measuring(config, each)
            members = [_run_study(prepared, each, (explored or {}).get(name)) for name, each in tasks.items()]
            sharing = share(members) if len(members) > 1 or config.shared_default else None
        studies = tuple(member.result for member in members)
        origin = provenance(config.search_name, config.seed, loaded.identity)
        policies = policy_set(
            loaded.facts.fingerprint, studies, splits, origin, prepared.certificate, sharing,
            shared_default=config.shared_default,
        )  # fmt: skip
        reports = write_report(studies, folder / "report", sharing)
        policy_file = save_policy(policies, folder / "policy.json")
        shared_file = save_shared(policies, sharing, folder / "policy_shared.json")
        for study in studies:
            tracker.log_study(study, [*reports[study.task], *sorted(Path(study.records).iterdir())])
        tracker.log_sharing(sharing)
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.finish("FINISHED", [*reports[""], policy_file, *shared_file, folder / "config.yaml"])
    show_studies(console, studies, policy_file, sharing)
    return SearchResult(folder, policy_file, policies, studies, sharing)


def _run_study(prepared: Prepared, study: Study, candidates: Sequence[Policy] | None) -> Member:
    """Measure all candidates of one task, choose, test the choice, and measure it on the holdout."""
    config, folder = prepared.config, search_folder(prepared.config)
    name, limits = study.settings.task, limits_of(config, study.settings.task)
    examination = Examination(study, HoldoutLedger(Path(config.runs)), config.search_name)
    noise = noise_of(config, study, limits)
    floor = noise.floor()
    racing = racing_of(prepared, study, limits)
    candidates = candidates or explored_alone(config, study, prepared.space, limits, racing)
    found = study.measure(candidates, racing)
    answer = choose(judged_rows(found, candidates, limits), objective_of(limits.prefer, limits.weights))
    identity = study.scored_identity(SEARCH_SPLITS)
    prepared.storage.patience.call(
        partial(record_trials, prepared.storage.studies, name, answer.rows, limits, identity)
    )
    confirmation = examination.confirm(answer.rows, limits)
    answer = answer if confirmation is None else confirmed(_timed(study, answer, confirmation.winner), confirmation)
    require_affordable(name, answer, limits)
    holdout = examination.holdout(answer.chosen, limits)
    if "failure" in holdout:
        answer = keep_all_instead(answer, f"failed on the holdout: {holdout['failure']}")
        require_affordable(name, answer, limits)
        holdout = examination.holdout(answer.chosen, limits)
    policy_noise = noise.of_policy(answer.chosen.measurement.policy)
    baselines = measured_baselines(study, answer.chosen, limits)
    records = folder / "records" / name
    rows = [row.measurement for row in answer.rows]
    warnings = accuracy_warning(limits, answer.rows[0]) + noise_warning(limits, policy_noise)
    measured = [*rows, *(baseline.row.measurement for baseline in baselines)]
    export_records(_records_of(study, found, answer, baselines), measured, records)
    result = StudyResult(
        task=name,
        rows=answer.rows,
        limits=limits.as_dict(),
        chosen=answer.chosen,
        verdict=answer.verdict + baselines_text(answer.chosen, baselines) + warnings,
        holdout=holdout,
        identity=study.identity(SEARCH_SPLITS),
        records=str(records),
        confirmation=confirmation,
        noise=floor,
        policy_noise=policy_noise,
        baselines=baselines,
        racing=None if racing is None else saving(study, rows, found.samples, racing),
    )
    return Member(study, limits, result, examination, noise)


def _timed(study: Study, answer: Answer, winner: Policy | None) -> Answer:
    """Return the answer with the winner's time: before the tests only those that no other beats were timed."""
    rows = [row.measurement for row in answer.rows if row.measurement.policy == winner]
    return with_measurement(answer, study.timed(rows[0])) if rows else answer


def _records_of(study: Study, found: Measured, answer: Answer, baselines: Sequence[Baseline]) -> pd.DataFrame:
    """Return the sample records of candidates, as far as racing let them go, and of baselines.

    The store is shared with other searches, which may have had other candidates and baselines.
    """
    extra = {baseline.row.measurement.policy.digest() for baseline in baselines}
    own = {row.measurement.policy.digest() for row in answer.rows} - extra
    every = study.samples(SEARCH_SPLITS)
    parts = [found.samples[found.samples["policy"].isin(own)], every[every["policy"].isin(extra)]]
    return pd.concat(parts).sort_values(KEY, ignore_index=True)
