"""Intervals shown beside point estimates. Samples of one cluster (image) are not independent; clusters are.

These intervals describe a point estimate; they are no test of a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A two-sided interval."""

    low: float
    high: float


def cluster_values(values: Sequence[float], clusters: Sequence[str]) -> np.ndarray:
    """Return one value per cluster, in order of first appearance, whose mean is the mean over all samples.

    A cluster's value is the sum over its samples divided by the mean cluster size (the linearised ratio estimator), so
    that an interval around these values is one of the point estimate that is shown, also when clusters differ in size.
    """
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + float(value)
    return np.array(list(sums.values())) * (len(sums) / len(values))


def bootstrap_interval(values: Sequence[float], clusters: Sequence[str], level: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean over clusters, seeded; a single cluster gives an infinite interval.

    KL is heavy-tailed, so that this interval is too narrow when the tail was not sampled: a description, not a bound.
    """
    means = cluster_values(values, clusters)
    if len(means) < 2:
        return Interval(-np.inf, np.inf)
    if np.ptp(means) == 0:
        return Interval(float(means[0]), float(means[0]))
    result = stats.bootstrap(
        (means,), np.mean, confidence_level=level, n_resamples=999, method="percentile", rng=np.random.default_rng(0)
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def paired_difference_interval(differences: Sequence[float], clusters: Sequence[str], level: float = 0.95) -> Interval:
    """Interval of a mean paired difference in [-1, 1], after Agresti and Min (2005) for matched pairs.

    Their adjustment adds one half to each cell of the 2 x 2 table of pairs, here to clusters: two pseudo-clusters that
    differ by +1 and -1 with weight one half each, and one that does not differ. The interval therefore keeps a width
    when no pair differs.
    """
    means = cluster_values(differences, clusters)
    count = len(means) + 2.0
    center = means.sum() / count
    second_moment = (np.square(means).sum() + 1.0) / count
    margin = stats.norm.ppf(0.5 + level / 2) * np.sqrt(max(second_moment - center**2, 0.0) / count)
    return Interval(max(-1.0, float(center - margin)), min(1.0, float(center + margin)))


def mean_interval(scores: Sequence[float], clusters: Sequence[str], level: float = 0.95) -> Interval:
    """Wilson interval of a mean score in [0, 1], with clusters as the sample size (exact for 0/1 scores)."""
    means = cluster_values(scores, clusters)
    count, p = len(means), float(means.mean())
    z = float(stats.norm.ppf(0.5 + level / 2))
    center = (p + z * z / (2 * count)) / (1 + z * z / count)
    margin = z / (1 + z * z / count) * float(np.sqrt(p * (1 - p) / count + z * z / (4 * count * count)))
    return Interval(max(0.0, center - margin), min(1.0, center + margin))
