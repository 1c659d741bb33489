"""Limits, and what they say of measurements. Pure functions of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from vtw_search.errors import unknown_name

# The cap on single KL values, in multiples of the limit on their mean, where none is given.
CAP_PER_LIMIT = 10.0


@dataclass(frozen=True)
class QualityLimit:
    """One bound on the loss of quality.

    Attributes:
        name: such as `kl_nats` or `accuracy_drop[digits=4]`.
        quantity: the mean KL, the share of KL values above the cap, or the mean drop.
        bound: the largest value that is allowed.
        slice_: the part of the samples that it is about; None for all.
    """

    name: str
    quantity: Literal["kl", "tail", "drop"]
    bound: float
    slice_: tuple[str, str] | None = None


@dataclass(frozen=True)
class Limits:
    """What a policy may lose and cost; a bound of None is not asked for.

    Attributes:
        kl_nats: bound on the mean KL divergence over the calibration samples.
        kl_position: `answer` (mean over the answer's tokens) or `first_token`.
        kl_direction: `reference_candidate`, KL(reference || candidate), or `candidate_reference`.
        kl_samples: judge the KL on the first so many calibration samples only; None takes all.
        accuracy_drop: bound on the mean paired loss of accuracy over the selection samples.
        first_layer: policies that act below this layer are not considered.
        kl_cap_nats: where single values are cut for the test of the mean; None takes ten times the limit on the mean.
        kl_tail: bound on the share of images with a KL above the cap; without `kl_nats` it needs a cap that is given.
        confidence: level at which limits are tested on the confirmation split; None tests nothing.
        finalists: at most so many candidates are tested.
        slices: bounds per slice, `digits` for each value of that slice or `digits=4` for one.
        at_most: bounds on columns of the measurement that are costs, such as `latency_ms`.
        prefer, weights: what the choice among feasible policies minimises; see `search.objective`.
    """

    kl_nats: float | None
    kl_position: str
    kl_direction: str
    kl_samples: int | None = None
    accuracy_drop: float | None = None
    first_layer: int | None = None
    kl_cap_nats: float | None = None
    kl_tail: float | None = None
    confidence: float | None = None
    finalists: int = 5
    slices: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    prefer: Sequence[str] = ("macs",)
    weights: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the limits for files; what is not asked for is left out, except the three that always count."""
        always = {"kl_nats", "accuracy_drop", "confidence"}
        return {name: value for name, value in asdict(self).items() if name in always or value not in (None, {}, ())}

    @property
    def need_time(self) -> bool:
        """Whether a limit is on time, or time is what is preferred."""
        return any(map(is_time, (*self.at_most, *self.prefer, *self.weights)))

    def without_time(self) -> Self:
        """Return the limits but for those on time."""
        return replace(self, at_most={name: bound for name, bound in self.at_most.items() if not is_time(name)})

    def limits_slice(self, name: str) -> bool:
        """Whether a limit is on a slice, or on one of its values."""
        return any(_name_of(key) == name for key in self.slices)

    def without_slice(self, name: str) -> Self:
        """Return the limits without those on a slice."""
        return replace(self, slices={key: bounds for key, bounds in self.slices.items() if _name_of(key) != name})

    @property
    def tail(self) -> float | None:
        """The bound on the tail; none where nothing says where it begins: no limit on the mean, and no cap."""
        return None if self.kl_nats is None and self.kl_cap_nats is None else self.kl_tail

    def quality(self, slices: Sequence[tuple[str, str]]) -> list[QualityLimit]:
        """Return every bound on quality, those on all samples first.

        Args:
            slices: the (name, value) pairs that occur in the samples.

        Raises:
            UnknownNameError: a slice is limited that does not occur.
        """
        whole = _present(self.kl_nats, self.tail, self.accuracy_drop, None)
        parts = [
            limit
            for key, bounds in self.slices.items()
            for part in _matching(key, slices)
            for limit in _present(bounds.get("kl_nats"), None, bounds.get("accuracy_drop"), part)
        ]
        return [*whole, *parts]

    def cap_nats(self, limit: QualityLimit) -> float:
        """Return c of E[min(KL, c)] and P(KL > c) for a limit on KL."""
        if self.kl_cap_nats is not None:
            return self.kl_cap_nats
        mean = limit.bound if limit.quantity == "kl" else self.kl_nats
        return CAP_PER_LIMIT * (mean or 0.0) or 1.0


def is_time(column: str) -> bool:
    """Whether a column of a measurement is a time."""
    return "latency" in column


def _present(
    kl: float | None, tail: float | None, drop: float | None, part: tuple[str, str] | None
) -> Iterable[QualityLimit]:
    suffix = "" if part is None else f"[{part[0]}={part[1]}]"
    if kl is not None:
        yield QualityLimit(f"kl_nats{suffix}", "kl", kl, part)
    if tail is not None:
        yield QualityLimit(f"kl_tail{suffix}", "tail", tail, part)
    if drop is not None:
        yield QualityLimit(f"accuracy_drop{suffix}", "drop", drop, part)


def _name_of(key: str) -> str:
    return key.partition("=")[0]


def _matching(key: str, slices: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    found = [part for part in slices if key in (part[0], "=".join(part))]
    if not found:
        # A slice may have many values: those of the named one will do.
        values = {"=".join(part) for part in slices if part[0] == _name_of(key)}
        raise unknown_name("slice", key, {*(name for name, _ in slices), *values})
    return found


def limits_for_task(asked: Mapping[str, Any], defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> Limits:
    """Combine limits: a task's own override, else what was asked for all tasks, else the task's default.

    The text `task` in `asked` stands for "the task's default".
    """
    values: dict[str, Any] = {name: overrides.get(name, asked.get(name)) for name in {*asked, *overrides}}
    values |= {name: defaults.get(name) for name, value in values.items() if value == "task"}
    return Limits(**values)
