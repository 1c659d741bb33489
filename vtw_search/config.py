"""The configuration of a search: one model per group of `conf/`, checked as a whole."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from hydra import compose, initialize_config_module
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vtw_search.errors import ConfigError, near_matches

_Settings = TypeVar("_Settings", bound=BaseModel)
Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
SliceLimits = dict[Literal["kl_nats", "accuracy_drop"], Bound]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# An interval on a ratio of times needs three rounds.
Repeats = Literal[0] | Annotated[int, Field(ge=3)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Group(BaseModel):
    """One group of settings: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Group):
    """Which model, and how it computes."""

    path: str
    revision: str | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["bfloat16", "float16", "float32"] = "float32"
    attention: Literal["eager", "sdpa"] = "sdpa"


class TaskLimits(Group):
    """A task's default limits."""

    kl_nats: Bound | None = 0.01
    accuracy_drop: Bound | None = 0.02


class TaskSettings(Group):
    """One task: where its samples come from and how long answers may be."""

    name: Name | None = None
    source: str
    options: dict[str, Any] = {}
    max_new_tokens: Count
    limits: TaskLimits = TaskLimits()


class TaskOverrides(Group):
    """Limits of one task that replace those asked for all tasks."""

    kl_nats: Bound | None = None
    kl_tail: Share | None = None
    accuracy_drop: Bound | None = None
    first_layer: Count | None = None
    slices: dict[str, SliceLimits] = {}
    at_most: dict[str, Bound] = {}


class LimitSettings(Group):
    """The limits of the search; `task` stands for the task's own default."""

    kl_nats: Bound | Literal["task"] | None = "task"
    kl_position: Literal["answer", "first_token"] = "answer"
    kl_direction: Literal["reference_candidate", "candidate_reference"] = "reference_candidate"
    kl_samples: Count | None = None
    kl_cap_nats: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    kl_tail: Share | None = 0.05
    accuracy_drop: Bound | Literal["task"] | None = "task"
    first_layer: Count | None = None
    slices: dict[str, SliceLimits] = {}
    at_most: dict[str, Bound] = {}
    prefer: list[str] = ["macs"]
    weights: dict[str, float] = {}
    confidence: Annotated[float, Field(ge=0.5, lt=1)] | None = 0.95
    finalists: Annotated[int, Field(ge=1, le=5)] = 5
    per_task: dict[str, TaskOverrides] = {}


class SpaceSettings(Group):
    """Which recipes, and what replaces the values of their parameters.

    Attributes:
        recipes: name -> parameter -> a value or a list of values; nothing takes the recipe's own.
        first_layer, last_layer: range of K of the recipe `vtw`; None takes the model's own.
    """

    recipes: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] = {"vtw": {}}
    first_layer: Count | None = None
    last_layer: Count | None = None


class SamplerConfig(Group):
    """How a space is explored: `auto` enumerates up to `enumerate_up_to` policies and samples beyond.

    With a `pool`, a proxy picks what is measured from the proposals and so many other combinations.
    """

    name: Literal["auto", "enumerate", "tpe", "random", "nsga2", "nsga3", "qmc", "gp"] = "auto"
    enumerate_up_to: Count = 200
    trials: Count = 200
    batch: Count = 16
    pool: Annotated[int, Field(ge=0)] = 1000


class RacingSettings(Group):
    """Where candidates that surely break a limit stop early.

    Attributes:
        above: race where the space has more policies than this; None never races.
        confidence: a candidate within all of its limits is stopped with probability 1 - confidence at most.
    """

    above: Annotated[int, Field(ge=0)] | None = 200
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95


class ProfileSettings(Group):
    """How often prefills are timed, after a warm-up until they settle; 0 repeats count macs only."""

    repeats: Repeats = 5


class TrackingSettings(Group):
    """The MLflow store; no uri, no tracking."""

    uri: str | None = None
    experiment: str = "vtw-search"
    timeout_s: Annotated[float, Field(gt=0)] = 10.0


class StorageSettings(Group):
    """Where Optuna's studies and the workers' leases are kept.

    Attributes:
        url: of a PostgreSQL database; the other kinds are files in the folder of the search.
        lease_s: after which a silent worker has lost its work to the others.
        patience_s: for how long a database that does not answer is asked again.
    """

    name: Literal["sqlite", "journal", "postgres"] = "sqlite"
    url: str | None = None
    lease_s: Seconds = 60.0
    patience_s: Seconds = 30.0


class SampleSettings(Group):
    """At most so many samples per split and task."""

    calibration: Count = 100
    selection: Count = 200
    confirmation: Annotated[int, Field(ge=0)] = 300
    holdout: Count = 300


class NoiseSettings(Group):
    """How the noise of the numbers themselves is measured; 0 samples leave it out."""

    samples: Annotated[int, Field(ge=0)] = 32
    variations: list[Literal["batch", "attention", "dtype"]] = ["batch", "attention", "dtype"]


class SearchConfig(Group):
    """Everything a search depends on."""

    search: Name | None = None
    runs: str = "runs"
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Count = 50
    timeout_s: Seconds | None = None
    samples: SampleSettings = SampleSettings()
    noise: NoiseSettings = NoiseSettings()
    worker: Annotated[int, Field(ge=0)] | None = None
    sweep: str | None = None
    shared_default: bool = False
    model: ModelSettings
    tasks: Annotated[dict[str, TaskSettings], Field(min_length=1)]
    limits: LimitSettings = LimitSettings()
    space: SpaceSettings = SpaceSettings()
    sampler: SamplerConfig = SamplerConfig()
    racing: RacingSettings = RacingSettings()
    profile: ProfileSettings = ProfileSettings()
    tracking: TrackingSettings = TrackingSettings()
    storage: StorageSettings = StorageSettings()

    @property
    def named_tasks(self) -> dict[str, TaskSettings]:
        """Tasks by the name that files and tables use."""
        return {task.name or key: task for key, task in self.tasks.items()}

    @property
    def digest(self) -> str:
        """A hash of what decides the result."""
        how = {"search", "runs", "sweep", "tracking", "storage", "worker"}
        decisive = self.model_dump(mode="json", exclude=how)
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def search_name(self) -> str:
        """The given name, or one made of the model, the tasks and a hash of what decides the result.

        In a sweep a given name gets the hash as well, so that each of its jobs is a search of its own.
        """
        if self.search is not None:
            return self.search if self.sweep is None else f"{self.search}-{self.digest}"
        model = re.sub(r"[^A-Za-z0-9.-]+", "-", self.model.path.rstrip("/").split("/")[-1]).strip("-.") or "model"
        tasks = list(self.named_tasks)
        return f"{model}-{tasks[0]}{f'-and-{len(tasks) - 1}' if len(tasks) > 1 else ''}-{self.digest}"


def load_config(*overrides: str, config_dirs: Sequence[str] = ()) -> SearchConfig:
    """Compose `conf/` with command-line overrides, for example `load_config("task=digits_read", "seed=1")`.

    Raises:
        ConfigError: a name is unknown (with near matches) or a value is not allowed; all bad values are listed at once.
    """
    return validate(compose_config("config", SearchConfig, overrides, config_dirs))


def compose_config(
    primary: str, model: type[BaseModel], overrides: Sequence[str], config_dirs: Sequence[str] = ()
) -> DictConfig:
    """Compose `conf/<primary>.yaml`; `model` knows its keys, for near matches. Raises ConfigError."""
    extra = [f"hydra.searchpath=[{','.join('file://' + folder for folder in config_dirs)}]"] if config_dirs else []
    try:
        with initialize_config_module("conf", version_base="1.3"):
            return compose(primary, overrides=[*overrides, *extra])
    except MissingConfigException as error:
        raise _unknown_option(error) from error
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        raise _bad_override(error, list(overrides), model) from error


def validate(composed: DictConfig | Mapping[str, Any]) -> SearchConfig:
    """Check a composed configuration; ConfigError lists every bad value."""
    # `task` only carries the command-line options of task=jsonl, which the tasks refer to.
    content = {key: value for key, value in content_of(composed).items() if key not in {"task", "hydra"}}
    config = validated(SearchConfig, content)
    if len(config.named_tasks) < len(config.tasks):
        raise ConfigError("two tasks must not have one name", value=sorted(config.tasks), remedy="set task.name")
    _check_task_names(config)
    _check_storage(config.storage)
    return config


def content_of(composed: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return a composed configuration as plain values; ConfigError names a setting that needs a value."""
    try:
        content = OmegaConf.to_container(_as_config(composed), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(f"the setting {key} needs a value", remedy=f"add {key}=...") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def validated(model: type[_Settings], content: Mapping[str, Any]) -> _Settings:
    """Return `content` as `model`; ConfigError lists every bad value."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(detail) for detail in error.errors())) from error


def _as_config(composed: DictConfig | Mapping[str, Any]) -> DictConfig:
    return composed if isinstance(composed, DictConfig) else OmegaConf.create(dict(composed))


def _check_task_names(config: SearchConfig) -> None:
    for task in config.limits.per_task:
        if task not in config.named_tasks:
            remedy = near_matches(task, config.named_tasks)
            raise ConfigError(f"unknown task {task!r} in limits.per_task", remedy=remedy)


def _check_storage(storage: StorageSettings) -> None:
    url = storage.url or ""
    # The URL is in no message: it may hold a password.
    fits = re.match(r"postgresql(\+psycopg)?://", url) if storage.name == "postgres" else not url
    if not fits:
        remedy = "for example storage=postgres storage.url=postgresql://me@host/database"
        raise ConfigError(
            "storage.url must be that of a PostgreSQL database, and is for storage=postgres", remedy=remedy
        )


def _problem(detail: Any) -> str:
    # A union reports one problem per member; the member's name is no part of the setting's name.
    place = ".".join(
        str(part) for part in detail["loc"] if not re.search(r"[\[(]|^(float|int|str|constrained)", str(part))
    )
    return f"{place}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"


def _unknown_option(error: MissingConfigException) -> ConfigError:
    name = str(error.missing_cfg_file or "")
    group, _, option = name.rpartition("/")
    if not error.options:
        return ConfigError(str(error).splitlines()[0], remedy="check the name and --config-dir")
    return ConfigError(f"unknown {group or 'config'} {option!r}", remedy=near_matches(option, error.options))


def _bad_override(error: Exception, overrides: list[str], model: type[BaseModel]) -> ConfigError:
    text = str(error).splitlines()[0]
    key = re.search(r"(?:override|find|append to config. An item is already at) '([^'=]+)", text)
    if key is None or "override" not in text.lower():
        return ConfigError(text, value=" ".join(overrides), remedy="overrides look like group=option or key.sub=value")
    known = [*_known_keys(model), "task", "task.path"]
    if key.group(1) in known:
        remedy = f"write +{key.group(1)}.<task>.<limit>=<value>"
        return ConfigError(f"entries are added to {key.group(1)} with a plus", value=" ".join(overrides), remedy=remedy)
    close = difflib.get_close_matches(key.group(1), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return ConfigError(f"unknown option {key.group(1)!r}", remedy=hint)


def _known_keys(group: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in group.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            keys += [prefix + name, *_known_keys(nested, f"{prefix}{name}.")]
        else:
            keys.append(prefix + name)
    return keys
