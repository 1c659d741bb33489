"""`run_search`: from a configuration to a policy file, the steps in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from rich.console import Console

from vtw_search.config import SearchConfig, TaskSettings
from vtw_search.engine import check_images
from vtw_search.errors import ConfigError
from vtw_search.evaluation.certify import Certifiable
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import SPLITS, Splits, counts_text, make_splits
from vtw_search.evaluation.tasks import load_pools
from vtw_search.files import write_text_atomically
from vtw_search.policies import Certificate, Policy, PolicySet, save_policy
from vtw_search.progress import WorkProgress
from vtw_search.provenance import command_line, provenance
from vtw_search.records import export_records
from vtw_search.report import show_studies, write_report
from vtw_search.results import Row, StudyResult
from vtw_search.search.answer import choose, confirmed, judged_rows, keep_all_instead, require_affordable
from vtw_search.search.baselines import baselines_text, measured_baselines
from vtw_search.search.certificate import model_certificate
from vtw_search.search.examination import Examination
from vtw_search.search.export import policy_set, save_shared
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.limits import Limits, limits_for_task
from vtw_search.search.noise import noise_floor
from vtw_search.search.objective import objective_of
from vtw_search.search.racing import Racing
from vtw_search.search.reach import check_names, check_reach, reach, reach_text, slices_in
from vtw_search.search.sampling import DEFAULT_SAMPLER, SamplerSettings, explore
from vtw_search.search.saving import saving
from vtw_search.search.sharing import Member, share
from vtw_search.search.space import Space, candidates_of, make_space
from vtw_search.search.storage import Storage, make_storage
from vtw_search.search.study import SEARCH_SPLITS, Study, StudySettings
from vtw_search.search.trials import record_trials
from vtw_search.tracking import MlflowTracker, NoTracker, Tracker, TrackingSettings, redact
from vtw_search.transfer import Sharing

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
        sharing: how they do on each other's tasks, and one policy for all; None for a single task.
    """

    folder: Path
    policy_file: Path
    policies: PolicySet
    studies: tuple[StudyResult, ...]
    sharing: Sharing | None = None


@dataclass(frozen=True)
class Prepared:
    """A search before anything is measured.

    Attributes:
        config, console: what is asked for, and where to say how it goes.
        splits: of every task.
        loaded, certificate: the model.
        space: what may be chosen.
        storage: of Optuna's studies and of the workers' leases.
    """

    config: SearchConfig
    console: Console
    splits: Mapping[str, Splits]
    loaded: LoadedModel
    space: Space
    certificate: Certificate | None
    storage: Storage

    def study(self, name: str, progress: WorkProgress) -> Study:
        """Return the study of a task."""
        return Study(self.loaded, self.splits[name], _study_settings(self.config, name), progress)

    def say(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(text, highlight=False)


def run_search(config: SearchConfig, console: Console | None = None) -> SearchResult:
    """Search a policy for every task of `config`; the same search continues where it was stopped.

    Args:
        config: as `vtw_search.config.load_config` returns it.
        console: where progress and tables go; stdout by default.

    Raises:
        VtwError: a subclass says what is wrong with the configuration, the model, the data or the disk.
    """
    return finish_search(prepare(config, console or Console()))


def search_folder(config: SearchConfig) -> Path:
    """Return the folder of a search."""
    return Path(config.runs) / config.search_name


def prepare(config: SearchConfig, console: Console) -> Prepared:
    """Check what can be checked and load the model, before anything is measured; raises as `run_search`."""
    folder = search_folder(config)
    console.print(f"loading {', '.join(config.named_tasks)} and {config.model.path}", highlight=False)
    splits = {name: _load_splits(task, config) for name, task in config.named_tasks.items()}
    _say_what_is_certifiable(config, splits, console)
    loaded = _load_model(config)
    space = _space(config, loaded)
    # An error of the tracker's settings is told before anything is written.
    _make_tracker(config, folder, console)
    _save_config(config, folder)
    certificate = model_certificate(loaded, folder, lambda text: console.print(text, highlight=False))
    console.print(f"search [bold]{config.search_name}[/] in {folder}\n{counts_text(splits)}", highlight=False)
    return Prepared(config, console, splits, loaded, space, certificate, _opened_storage(config, folder, console))


def finish_search(prepared: Prepared, explored: Mapping[str, Sequence[Policy]] | None = None) -> SearchResult:
    """Measure what is missing, choose, test and report.

    Args:
        prepared: the search.
        explored: candidates by task, where workers have chosen them together.
    """
    config, console, splits, loaded = prepared.config, prepared.console, prepared.splits, prepared.loaded
    folder = search_folder(config)
    tracker = _make_tracker(config, folder, console)
    tracker.start(config.model_dump(mode="json", exclude={"worker"}), command_line())
    try:
        with WorkProgress(console) as progress:
            members = [
                _run_study(prepared, prepared.study(name, progress), (explored or {}).get(name)) for name in splits
            ]
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
    racing = racing_of(prepared, study, limits)
    candidates = candidates or _explored(config, study, prepared.space, limits, racing)
    store = study.measure(candidates, racing)
    answer = choose(judged_rows(store, candidates, limits), objective_of(limits.prefer, limits.weights))
    prepared.storage.patience.call(
        partial(record_trials, prepared.storage.studies, name, answer.rows, limits, study.identity(SEARCH_SPLITS))
    )
    confirmation = examination.confirm(answer.rows, limits)
    answer = answer if confirmation is None else confirmed(answer, confirmation)
    require_affordable(name, answer)
    holdout = examination.holdout(answer.chosen.measurement)
    if "failure" in holdout:
        answer = keep_all_instead(answer, f"failed on the holdout: {holdout['failure']}")
        require_affordable(name, answer)
        holdout = examination.holdout(answer.chosen.measurement)
    baselines = measured_baselines(study, answer.chosen, limits)
    records = folder / "records" / name
    measured = [*answer.rows, *(baseline.row for baseline in baselines)]
    frame, digests = store.samples(), {row.measurement.policy.digest() for row in measured}
    # The store is shared with other searches, which may have had other candidates and baselines.
    export_records(frame[frame["policy"].isin(digests)], [row.measurement for row in measured], records)
    result = StudyResult(
        task=name,
        rows=answer.rows,
        limits=limits.as_dict(),
        chosen=answer.chosen,
        verdict=answer.verdict + baselines_text(answer.chosen, baselines),
        holdout=holdout,
        identity=study.identity(SEARCH_SPLITS),
        records=str(records),
        confirmation=confirmation,
        noise=noise,
        baselines=baselines,
        racing=None if racing is None else saving(study, [row.measurement for row in answer.rows], racing),
    )
    return Member(study, limits, result, examination)


def _space(config: SearchConfig, loaded: LoadedModel) -> Space:
    asked, facts = config.space, loaded.facts
    narrowed = asked.first_layer is not None or asked.last_layer is not None
    last = min(facts.last_layer, facts.num_layers - 1)
    layers = (asked.first_layer or facts.first_layer, asked.last_layer or last) if narrowed else None
    return make_space(facts, asked.recipes, layers)


def racing_of(prepared: Prepared, study: Study, limits: Limits) -> Racing | None:
    """Return the races of one task's candidates; None in a small space, whose tables and curves are then complete."""
    config = prepared.config
    if config.racing.above is None or prepared.space.size <= config.racing.above:
        return None
    samples = [sample for split in SEARCH_SPLITS for sample in study.splits[split]]
    return Racing(limits, config.racing.confidence, tuple(slices_in(samples)))


def _explored(config: SearchConfig, study: Study, space: Space, limits: Limits, racing: Racing | None) -> list[Policy]:
    """Return the candidates of one task: all of a small space, or what a sampler has measured of a large one."""
    settings = sampler_settings(config, space)
    if settings is None:
        return candidates_of(space)
    return explore(space, settings, space.seeds(settings.trials), partial(judged, study, limits, racing))


def sampler_settings(config: SearchConfig, space: Space, worker: int = 0) -> SamplerSettings | None:
    """Return how a space is explored; None where it is enumerated."""
    sampler = config.sampler
    if sampler.name == "enumerate" or (sampler.name == "auto" and space.size <= sampler.enumerate_up_to):
        return None
    name = DEFAULT_SAMPLER if sampler.name == "auto" else sampler.name
    return SamplerSettings(name, sampler.trials, sampler.batch, config.seed + worker, sampler.pool)


def judged(study: Study, limits: Limits, racing: Racing | None, policies: Sequence[Policy]) -> list[Row]:
    """Measure policies, and keep-all, and return their judged rows."""
    wanted = list(dict.fromkeys([Policy.keep_all(), *policies]))
    return judged_rows(study.measure(wanted, racing), wanted, limits)


def _study_settings(config: SearchConfig, name: str) -> StudySettings:
    return StudySettings(
        task=name,
        max_new_tokens=config.named_tasks[name].max_new_tokens,
        batch_size=config.batch_size,
        repeats=config.profile.repeats,
        store=Path(config.runs) / "_records",
        timeout_s=config.timeout_s,
        time_all=config.profile.repeats > 0 and limits_of(config, name).need_time,
    )


def _load_splits(task: TaskSettings, config: SearchConfig) -> Splits:
    pools = load_pools(task.source, task.options)
    splits = make_splits(pools, config.seed, config.samples.model_dump())
    check_images(sample for split in SPLITS for sample in splits[split])
    return splits


def _load_model(config: SearchConfig, dtype: str | None = None) -> LoadedModel:
    model = config.model
    return load_model(
        model.path, revision=model.revision, device=model.device, dtype=dtype or model.dtype, attention=model.attention
    )


def _opened_storage(config: SearchConfig, folder: Path, console: Console) -> Storage:
    asked = config.storage
    storage = make_storage(
        asked.name, folder, asked.url, asked.patience_s, lambda text: console.print(text, highlight=False)
    )
    # One that does not answer is told before anything is measured.
    storage.studies  # noqa: B018
    return storage


def noise_of(config: SearchConfig, study: Study, limits: Limits) -> dict[str, dict[str, float]]:
    """Return the noise floor of a study; ConfigError if a limit is below it."""
    return noise_floor(study, limits, config.noise.samples, config.noise.variations, partial(_load_model, config))


def limits_of(config: SearchConfig, name: str) -> Limits:
    """Return the limits of a task: its own, those asked for all, and those asked for it."""
    override = config.limits.per_task.get(name)
    return limits_for_task(
        config.limits.model_dump(exclude={"per_task"}),
        config.named_tasks[name].limits.model_dump(),
        override.model_dump(exclude_unset=True) if override else {},
    )


def _say_what_is_certifiable(config: SearchConfig, splits: Mapping[str, Splits], console: Console) -> None:
    """Print what the confirmation split can certify; ConfigError if an asked limit is beyond that."""
    found: dict[str, list[Certifiable]] = {}
    for name, split in splits.items():
        limits = limits_of(config, name)
        check_names(limits, split["selection"], timed=config.profile.repeats > 0)
        if limits.confidence is not None:
            found[name] = reach(limits, split["confirmation"], limits.confidence)
    if found:
        level = config.limits.confidence or 0.0
        check_reach(found, level)
        console.print(reach_text(found, level), highlight=False)


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
    path, content = folder / "config.yaml", config.model_dump(mode="json", exclude={"worker"})
    content["tracking"]["uri"] = config.tracking.uri and redact(config.tracking.uri)
    content["storage"]["url"] = config.storage.url and redact(config.storage.url)
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
