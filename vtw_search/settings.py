"""What a search can be told: one model per group of `conf/`, frozen and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from profilers.protocol import MAX_SECONDS
from vtw_search.files import PlainName, with_home

Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
SliceBound = Literal["kl_nats", "accuracy_drop"]


def _by_value(slices: Any) -> Any:
    """Take `{digits: {4: {kl_nats: 0.1}}}` for `{digits=4: {kl_nats: 0.1}}`, which a shell and Hydra would not take.

    Raises:
        ValueError: both are given for one value, so that one of them would be lost.
    """
    if not isinstance(slices, Mapping):
        return slices
    found: dict[Any, Any] = {}
    for name, content in slices.items():
        for key, bounds in _parts(name, content):
            if key in found:
                raise ValueError(f"{key} must be limited in one place; write all its limits there")
            found[key] = bounds
    return found


def _parts(name: Any, content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what is asked for single values of a slice, and what is asked for all; what is no mapping as it is."""
    if not isinstance(content, Mapping):
        yield name, content
        return
    values = {key: each for key, each in content.items() if isinstance(each, Mapping)}
    yield from ((f"{name}={value}", bounds) for value, bounds in values.items())
    if len(values) < len(content) or not values:
        yield name, {key: each for key, each in content.items() if key not in values}


SliceLimits = Annotated[dict[str, dict[SliceBound, Bound]], BeforeValidator(_by_value)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# An interval on a ratio of times needs three rounds.
Repeats = Literal[0] | Annotated[int, Field(ge=3)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FilePath = Annotated[str, Field(min_length=1), AfterValidator(with_home)]


class Group(BaseModel):
    """One group of settings: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Group):
    """Which model, and how it computes."""

    path: FilePath
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

    name: PlainName | None = None
    source: str
    options: dict[str, Any] = {}
    max_new_tokens: Count
    limits: TaskLimits = TaskLimits()

    @field_validator("options")
    @classmethod
    def _given_ones(cls, options: dict[str, Any]) -> dict[str, Any]:
        # One that is null was not given: it changes neither what is searched nor the name of the search.
        return {name: value for name, value in options.items() if value is not None}


class TaskOverrides(Group):
    """Limits of one task that replace those asked for all tasks."""

    kl_nats: Bound | None = None
    kl_tail: Share | None = None
    accuracy_drop: Bound | None = None
    first_layer: Count | None = None
    slices: SliceLimits = {}
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
    slices: SliceLimits = {}
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
    """How often prefills are timed, after a warm-up until they settle; 0 repeats count macs only.

    Attributes:
        repeats: rounds A B B A.
        max_seconds: per candidate, after which times that have not settled are waited for no longer.
    """

    repeats: Repeats = 5
    max_seconds: Seconds = MAX_SECONDS


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

    search: PlainName | None = None
    runs: FilePath = "runs"
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Count = 50
    timeout_s: Seconds | None = None
    samples: SampleSettings = SampleSettings()
    noise: NoiseSettings = NoiseSettings()
    worker: Annotated[int, Field(ge=0)] | None = None
    wait_s: Annotated[float, Field(ge=0)] = 0.0
    sweep: str | None = None
    shared_default: bool = False
    model: ModelSettings
    tasks: Annotated[dict[PlainName, TaskSettings], Field(min_length=1)]
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
        how = dict.fromkeys(("search", "runs", "sweep", "tracking", "storage", "worker", "wait_s"), True)
        decisive = self.model_dump(mode="json", exclude={**how, "profile": {"max_seconds"}})
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
