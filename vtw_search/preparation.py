"""What a search needs before anything is measured: data, model, space, storage, its folder and its tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.markup import escape

from vtw_search.engine import check_images, check_prompts
from vtw_search.errors import ConfigError
from vtw_search.evaluation.certify import Certifiable
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.revision import is_commit
from vtw_search.evaluation.splits import Splits, counts_text, make_splits
from vtw_search.evaluation.tasks import DOWNSAMPLING_FAILS, load_pools
from vtw_search.files import unreadable, write_text_atomically
from vtw_search.locks import locked
from vtw_search.ownership import Ownership
from vtw_search.policies import Certificate, Policy
from vtw_search.progress import WorkProgress
from vtw_search.search.certificate import model_certificate
from vtw_search.search.limits import Limits, limits_for_task
from vtw_search.search.reach import check_cap, check_names, check_reach, check_slices, judging, reach, reach_text
from vtw_search.search.slices import pooled_grid
from vtw_search.search.space import Space, make_space
from vtw_search.search.storage import Storage, make_storage
from vtw_search.search.study import Study
from vtw_search.search.study_settings import StudySettings
from vtw_search.settings import SearchConfig, TaskSettings
from vtw_search.tracking import MlflowTracker, NoTracker, Tracker, TrackingSettings, redact

# What must not change when a search is continued under its name: its records would no longer be one search's.
_FIXED = ("model", "seed", "samples")


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
        return Study(self.loaded, self.splits[name], _study_settings(self.config, name, self.loaded), progress)

    def say(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(text, highlight=False, markup=False)


def search_folder(config: SearchConfig) -> Path:
    """Return the folder of a search."""
    return Path(config.runs) / config.search_name


def owned(config: SearchConfig, console: Console) -> Ownership:
    """Return the right to run a search, not taken yet: workers share it, and any other process has it alone."""
    alone, folder = config.worker is None, search_folder(config)
    what = "a search" if alone else f"worker {config.worker}"
    say = partial(console.print, highlight=False, markup=False)
    return Ownership(folder, what, shared=not alone, wait_s=config.wait_s, waits="wait_s=3600, for example", say=say)


def prepare(config: SearchConfig, console: Console, owner: Ownership) -> Prepared:
    """Check what can be checked and load the model, before anything is measured; raises as `run_search`."""
    folder = search_folder(config)
    say = partial(console.print, highlight=False, markup=False)
    say(f"loading {', '.join(config.named_tasks)} and {config.model.path}")
    splits = {name: _load_splits(task, config) for name, task in config.named_tasks.items()}
    sizes = {name: check_images(task.every) for name, task in splits.items()}
    _say_what_is_certifiable(config, splits, console)
    loaded = load(config, revision=config.model.revision or _saved_commit(config, folder))
    for name, task in splits.items():
        check_prompts(loaded, task.every, sizes[name], config.named_tasks[name].max_new_tokens)
    space = _space(config, loaded)
    # What the model cannot do for a slice, and an error of the tracker's settings, is told before anything is written.
    for name in splits:
        _pooled(config, name, loaded)
    make_tracker(config, folder, console)
    owner.take()
    _save_config(config, folder, loaded.facts.fingerprint.revision)
    certificate = model_certificate(loaded, folder, say)
    say(f"search {config.search_name} in {folder}\n{counts_text(splits)}")
    return Prepared(config, console, splits, loaded, space, certificate, _opened_storage(config, folder, console))


def _pooled(config: SearchConfig, name: str, loaded: LoadedModel) -> Policy | None:
    """Return the policy that a limited slice is measured with, if any; ConfigError if the model cannot run it."""
    return pooled_grid(loaded.facts) if limits_of(config, name).limits_slice(DOWNSAMPLING_FAILS) else None


def _study_settings(config: SearchConfig, name: str, loaded: LoadedModel) -> StudySettings:
    return StudySettings(
        task=name,
        max_new_tokens=config.named_tasks[name].max_new_tokens,
        batch_size=config.batch_size,
        repeats=config.profile.repeats,
        max_seconds=config.profile.max_seconds,
        store=Path(config.runs) / "_records",
        timeout_s=config.timeout_s,
        time_all=config.profile.repeats > 0 and limits_of(config, name).need_time,
        pooled=_pooled(config, name, loaded),
    )


def _load_splits(task: TaskSettings, config: SearchConfig) -> Splits:
    pools = load_pools(task.source, task.options)
    return make_splits(pools, config.seed, config.samples.model_dump())


def load(config: SearchConfig, dtype: str | None = None, *, revision: str | None = None) -> LoadedModel:
    """Return the model that is asked for, in another dtype or of another revision if they are given."""
    model = config.model
    return load_model(
        model.path, revision=revision or model.revision, device=model.device, dtype=dtype or model.dtype,
        attention=model.attention,
    )  # fmt: skip


def _opened_storage(config: SearchConfig, folder: Path, console: Console) -> Storage:
    asked = config.storage
    say = partial(console.print, highlight=False, markup=False)
    storage = make_storage(asked.name, folder, asked.url, asked.patience_s, say)
    # One that does not answer is told before anything is measured.
    storage.studies  # noqa: B018
    return storage


def limits_of(config: SearchConfig, name: str) -> Limits:
    """Return the limits of a task: its own, those asked for all, and those asked for it."""
    override = config.limits.per_task.get(name)
    return limits_for_task(
        config.limits.model_dump(exclude={"per_task"}),
        config.named_tasks[name].limits.model_dump(),
        override.model_dump(exclude_unset=True) if override else {},
    )


def _say_what_is_certifiable(config: SearchConfig, splits: Mapping[str, Splits], console: Console) -> None:
    """Print what the confirmation split can certify; ConfigError if an asked limit is beyond that, or beyond judging.

    A limit on a slice that is measured has to wait until it is.
    """
    found: dict[str, list[Certifiable]] = {}
    for name, split in splits.items():
        limits = limits_of(config, name)
        check_names(name, limits, split.every, timed=config.profile.repeats > 0)
        if limits.confidence is not None:
            check_cap(name, limits)
            known = limits.without_slice(DOWNSAMPLING_FAILS)
            found[name] = reach(known, split["confirmation"], limits.confidence, split.every)
    if found:
        level = config.limits.confidence or 0.0
        check_reach(found, level)
        console.print(reach_text(found, level), highlight=False, markup=False)
    for name, split in splits.items():
        limits = limits_of(config, name)
        check_slices(name, limits.without_slice(DOWNSAMPLING_FAILS), {each: split[each] for each in judging(limits)})


def make_tracker(config: SearchConfig, folder: Path, console: Console) -> Tracker:
    """Return the tracker that is asked for, not started."""
    tracking = config.tracking
    if tracking.uri is None:
        return NoTracker()
    settings = TrackingSettings(tracking.uri, tracking.experiment, tracking.timeout_s)
    return MlflowTracker(
        settings, config.search_name, folder, config.sweep,
        warn=lambda message: console.print(f"[yellow]warning:[/] {escape(message)}", highlight=False),
    )  # fmt: skip


def _saved_commit(config: SearchConfig, folder: Path) -> str | None:
    """Return the commit that a search under this name began with; a branch may have moved on since then."""
    path = folder / "config.yaml"
    before = _stored_config(path)["model"] if path.exists() else {}
    return before.get("revision") if before.get("path") == config.model.path else None


def _save_config(config: SearchConfig, folder: Path, commit: str | None = None) -> None:
    """Save the configuration before anything runs; refuse to continue a search that was another one.

    Args:
        config: what is asked for.
        folder: of the search.
        commit: of a Hub model; it is saved in place of a branch or of nothing.
    """
    path, content = folder / "config.yaml", config.model_dump(mode="json", exclude={"worker"})
    content["model"]["revision"] = commit or config.model.revision
    content["tracking"]["uri"] = config.tracking.uri and redact(config.tracking.uri)
    content["storage"]["url"] = config.storage.url and redact(config.storage.url)
    # Several workers may begin at the same time: one of them decides what is fixed.
    with locked(folder / "config.lock", f"the settings of {config.search_name}"):
        before = _stored_config(path) if path.exists() else content
        if not is_commit(before["model"].get("revision")):
            before["model"]["revision"] = content["model"]["revision"]
        changed = [key for key in _FIXED if before.get(key) != content[key]]
        if changed:
            raise ConfigError(
                f"search {config.search_name!r} exists with another {' and '.join(changed)}",
                value={key: content[key] for key in changed},
                remedy="choose another search=<name>; limits, tasks and tracking may change under the same name",
            )
        write_text_atomically(path, yaml.safe_dump(content, sort_keys=False))


class _StoredModel(BaseModel):
    model_config = ConfigDict(extra="allow")

    path: str
    revision: str | None = None


class _StoredConfig(BaseModel):
    """What is read again of a saved configuration; the rest of it is only held against what is asked for."""

    model_config = ConfigDict(extra="allow")

    model: _StoredModel


def _stored_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _StoredConfig.model_validate(content).model_dump()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        remedy = f"delete it if the search began with the {', '.join(_FIXED)} that are asked for now"
        raise unreadable(path, error, remedy) from error


def _space(config: SearchConfig, loaded: LoadedModel) -> Space:
    asked, facts = config.space, loaded.facts
    narrowed = asked.first_layer is not None or asked.last_layer is not None
    last = min(facts.last_layer, facts.num_layers - 1)
    layers = (asked.first_layer or facts.first_layer, asked.last_layer or last) if narrowed else None
    return make_space(facts, asked.recipes, layers)
