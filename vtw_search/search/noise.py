"""Noise: KL between two runs under one policy that should not differ.

Without a policy it is the noise floor: a limit on KL below what another dtype, another attention kernel or another
batch causes says nothing about a policy. Under the chosen policy it says how far the tested limits carry: a run under
such a variation is another run than the one that was tested.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, ConfigDict, TypeAdapter

from vtw_search.errors import ConfigError
from vtw_search.evaluation.model import LoadedModel
from vtw_search.files import remembered
from vtw_search.policies import Policy
from vtw_search.records import KL_COLUMNS
from vtw_search.search.limits import Limits, QualityLimit
from vtw_search.search.study import Study
from vtw_search.search.study_settings import SEARCH_SPLITS
from vtw_search.search.variations import Noise, measure_noise

# Variation -> mean, tail and maximum of one KL column.
Summary = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class NoiseQuestion:
    """What is asked of a study's noise.

    Attributes:
        study: whose model and calibration samples are used.
        limits: of its task.
        count: at most so many samples; 0 measures nothing.
        variations, reload: as in `measure_noise`.
    """

    study: Study
    limits: Limits
    count: int
    variations: Sequence[str]
    reload: Callable[[str], LoadedModel]

    def floor(self) -> Summary:
        """Return the noise without a policy, and hold the limits against it; ConfigError for a KL limit below it."""
        summary = self._summary(Policy.keep_all())
        check_noise(self.study.settings.task, self.limits, summary)
        return summary

    def of_policy(self, policy: Policy) -> Summary:
        """Return the noise under the chosen policy; nothing for keep-all, whose noise is the floor."""
        return {} if policy.is_keep_all else self._summary(policy)

    def _summary(self, policy: Policy) -> Summary:
        samples = self.study.splits["calibration"][: self.count]
        if not samples or not self.variations:
            return {}
        key = hashlib.sha256(json.dumps([len(samples), *self.variations]).encode()).hexdigest()[:16]
        whose = "" if policy.is_keep_all else f"-{policy.digest()}"
        # Measured once: the folder is that of everything else that the numbers depend on.
        path = self.study.store(SEARCH_SPLITS).derived(f"noise-{key}{whose}", policy)
        asked = self.study.settings
        measure = partial(
            measure_noise, self.study.loaded, samples, asked.max_new_tokens, asked.batch_size, self.variations,
            self.reload, policy,
        )  # fmt: skip
        stored = _stored(self.variations, len(samples))
        return noise_summary(remembered(path, stored, measure, self.study.progress.note), self.limits)


def _stored(variations: Sequence[str], count: int) -> TypeAdapter[Noise]:
    """Return what a file of noise holds: of every variation, one value of every KL column per sample."""

    def whole(noise: Noise) -> Noise:
        names, columns = set(variations), set(KL_COLUMNS.values())
        if set(noise) != names or any(set(each) != columns for each in noise.values()):
            raise ValueError(f"every variation must be there ({', '.join(sorted(names))}), with every column")
        if any(len(values) != count for each in noise.values() for values in each.values()):
            raise ValueError(f"every column must have {count} values")
        return noise

    kind = Annotated[dict[str, dict[str, list[float]]], AfterValidator(whole)]
    return TypeAdapter(kind, config=ConfigDict(ser_json_inf_nan="constants"))


def noise_summary(noise: Noise, limits: Limits) -> Summary:
    """Return, per variation, mean, p95, maximum and P(KL > c) of the divergence that the limits bound."""
    column = KL_COLUMNS[limits.kl_position, limits.kl_direction]
    cap = limits.cap_nats(QualityLimit("kl_nats", "kl", limits.kl_nats or 0.0))
    return {variation: _summary(np.array(columns[column]), cap) for variation, columns in noise.items()}


def _summary(values: np.ndarray, cap: float) -> dict[str, float]:
    return {
        "samples": len(values),
        "mean_nats": float(values.mean()),
        "p95_nats": float(np.quantile(values, 0.95)),
        "max_nats": float(values.max()),
        "cap_nats": cap,
        "share_above_cap": float((values > cap).mean()),
    }


def check_noise(task: str, limits: Limits, summary: Summary) -> None:
    """Refuse a limit on KL below the noise floor: the largest mean, or share above the cap, of any variation.

    Raises:
        ConfigError: the limit, a slice's included, is below the floor.
    """
    asked = (("kl_nats", _lowest_bound(limits), "mean_nats", "nats", "the limit"), (
        "kl_tail", limits.tail, "share_above_cap", "of the samples above the cap", "the limit or limits.kl_cap_nats"
    ))  # fmt: skip
    for name, bound, column, unit, remedy in asked:
        if not summary or bound is None:
            continue
        variation, floor = _worst(summary, column)
        if bound < floor:
            raise ConfigError(
                f"limits.{name} of {task} must not be below the noise floor of {floor:.3g} {unit}, which another "
                f"{variation} causes without any policy",
                value=bound,
                remedy=f"raise {remedy}, or leave that variation out of noise.variations if it never happens to you",
            )


def noise_warning(limits: Limits, summary: Summary, task: str | None = None) -> str:
    """Return, for the verdict, which limits on KL do not carry over to a variation; nothing where all do.

    The tests stand: they are about the policy as the search runs it. A run under the variation is not covered by them.
    `task` is named where a verdict is about several.
    """
    if not summary:
        return ""
    found, lowest, tail = [], _lowest_bound(limits), limits.tail
    variation, mean = _worst(summary, "mean_nats")
    if lowest is not None and mean > lowest:
        found.append(f"another {variation} alone is {mean:.2g} nats away on average, where {lowest:g} are allowed")
    variation, share = _worst(summary, "share_above_cap")
    if tail is not None and share > tail:
        cap = summary[variation]["cap_nats"]
        found.append(
            f"another {variation} alone is over {cap:g} nats away on {share:.0%} of the samples, where {tail:.0%} are "
            "allowed"
        )
    covered = "the limits on KL are about the search's own setting and do not cover such a run"
    where = "" if task is None else f" on {task}"
    return f"; WARNING{where}: {' and '.join(found)}; {covered}" if found else ""


def _lowest_bound(limits: Limits) -> float | None:
    """Return the smallest limit on a mean KL, those of slices included."""
    asked = [limits.kl_nats, *(bounds.get("kl_nats") for bounds in limits.slices.values())]
    return min((bound for bound in asked if bound is not None), default=None)


def _worst(summary: Summary, column: str) -> tuple[str, float]:
    variation = max(summary, key=lambda name: summary[name][column])
    return variation, summary[variation][column]
