"""What sample records say of limits: estimates on the search's own samples, upper bounds on the confirmation split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vtw_search.errors import EvidenceError
from vtw_search.evaluation.bounds import capped_mean_upper_bound, cluster_means, exceedance_upper_bound
from vtw_search.evaluation.paired import drop_upper_bound
from vtw_search.records import KL_COLUMNS
from vtw_search.results import Bounded
from vtw_search.search.limits import Limits, QualityLimit


@dataclass(frozen=True)
class Evidence:
    """The values of one policy that limits are judged on.

    Attributes:
        kl: one row per sample: `value` in nats, `cluster`, `slices` (JSON).
        drops: the same with reference score minus candidate score.
        binary: whether scores are 0 or 1 only.
    """

    kl: pd.DataFrame
    drops: pd.DataFrame
    binary: bool

    def of_slice(self, wanted: tuple[str, str] | None) -> Evidence:
        """Return the part of a slice, such as ("digits", "4"); everything for None."""
        if wanted is None:
            return self
        return replace(self, kl=in_slice(self.kl, wanted), drops=in_slice(self.drops, wanted))

    def slices(self) -> list[tuple[str, str]]:
        """Return every slice that occurs, sorted."""
        return slices_of([*self.kl["slices"], *self.drops["slices"]])


def slices_of(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (name, value) pairs in slices that are written as JSON."""
    return sorted({pair for text in set(texts) for pair in json.loads(text).items()})


def in_slice(rows: pd.DataFrame, wanted: tuple[str, str]) -> pd.DataFrame:
    """Return the rows whose `slices` have a (name, value) pair."""
    name, value = wanted
    inside = {text: json.loads(text).get(name) == value for text in rows["slices"].unique()}
    return rows[rows["slices"].map(inside).astype(bool)]


def evidence_of(
    rows: pd.DataFrame, reference: pd.DataFrame, limits: Limits, kl_split: str, drop_split: str, binary: bool
) -> Evidence:
    """Collect one policy's values.

    Args:
        rows, reference: sample records of the policy and of keep-all.
        limits: which divergence is bounded, and on how many samples.
        kl_split, drop_split: where KL and scores are taken from.
        binary: whether scores are 0 or 1 only.

    Raises:
        EvidenceError: the two were not measured on the same samples.
    """
    divergence = rows[rows["split"] == kl_split].sort_values("position")
    if limits.kl_samples is not None and kl_split == "calibration":
        divergence = divergence.head(limits.kl_samples)
    own, kept = (frame[frame["split"] == drop_split].sort_values("position") for frame in (rows, reference))
    if list(own["sample"]) != list(kept["sample"]):
        remedy = "run the search again; it resumes"
        raise EvidenceError("a policy and keep-all must have the same samples", value=len(own), remedy=remedy)
    keys = ["cluster", "slices"]
    column = KL_COLUMNS[limits.kl_position, limits.kl_direction]
    drops = kept["score"].to_numpy(dtype=float) - own["score"].to_numpy(dtype=float)
    return Evidence(
        divergence[keys].assign(value=divergence[column].to_numpy(dtype=float)), own[keys].assign(value=drops), binary
    )


def bounds_of(limits: Limits, evidence: Evidence, level: float) -> tuple[Bounded, ...]:
    """Return, for every quality limit, the estimate and its upper confidence bound.

    Raises:
        EvidenceError: a value is missing or not finite.
    """
    return tuple(
        _bound(limit, evidence.of_slice(limit.slice_), limits, level) for limit in limits.quality(evidence.slices())
    )


def _bound(limit: QualityLimit, evidence: Evidence, limits: Limits, level: float) -> Bounded:
    if limit.quantity == "drop":
        values, clusters = evidence.drops["value"].tolist(), evidence.drops["cluster"].tolist()
        found = drop_upper_bound(values, clusters, level, evidence.binary, limit.bound)
        return Bounded(limit.name, limit.bound, found.value, found.upper, found.units, found.method)
    values, clusters, cap = evidence.kl["value"].tolist(), evidence.kl["cluster"].tolist(), limits.cap_nats(limit)
    if limit.quantity == "tail":
        over = float((cluster_means((np.array(values) > cap).tolist(), clusters) > 0).mean())
        upper = exceedance_upper_bound(values, clusters, cap, level)
        method = f"share of images above {cap:g} nats, exact"
        return Bounded(limit.name, limit.bound, over, upper, len(set(clusters)), method)
    capped = float(cluster_means(np.minimum(values, cap).tolist(), clusters).mean())
    upper = capped_mean_upper_bound(values, clusters, cap, level)
    return Bounded(limit.name, limit.bound, capped, upper, len(set(clusters)), f"mean of min(KL, {cap:g}), betting")
