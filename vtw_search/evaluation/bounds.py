"""Upper confidence bounds that limits are tested with. They keep their level whatever the law of the values is.

An image is the unit that is drawn at random: samples of one image are averaged first, and an image counts once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from vtw_search.errors import EvidenceError

# The largest share of the capital that one bet may lose. Waudby-Smith and Ramdas suggest 1/2 or 3/4; 0.9 bounds rare
# events tighter, and experiments/limit_simulations shows that the level holds.
BOLDNESS = 0.9
_PRECISION = 1e-6


def cluster_means(values: Sequence[float], clusters: Sequence[str]) -> np.ndarray:
    """Return the mean value of every cluster, (number of clusters,), in order of first appearance.

    Raises:
        EvidenceError: there is no value, or one is missing or not finite.
    """
    numbers = checked(values, -np.inf, np.inf)
    _, first, member = np.unique(np.asarray(clusters, dtype=str), return_index=True, return_inverse=True)
    # Rounding lifts the mean of equal values above them, such as that of three values at a cap of 0.1.
    means = np.clip(np.bincount(member, numbers) / np.bincount(member), numbers.min(), numbers.max())
    return means[np.argsort(first)]


def checked(values: Sequence[float] | np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values as floats; EvidenceError if there are none, or one is missing or outside [low, high]."""
    numbers = np.asarray(values, dtype=float)
    if numbers.size == 0 or not np.isfinite(numbers).all():
        remedy = "measure it again; a limit is never judged on what is not there"
        raise EvidenceError("every value that a limit is judged on must be a number", value=numbers.size, remedy=remedy)
    outside = numbers[(numbers < low) | (numbers > high)]
    if outside.size:
        raise EvidenceError(f"values must lie in [{low:g}, {high:g}]", value=float(outside[0]))
    return numbers


def mean_upper_bound(values: Sequence[float] | np.ndarray, low: float, high: float, level: float) -> float:
    """Bound the mean of a law on [low, high] from above, by betting.

    Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting", section 4: the bound is
    the smallest m for which a gambler who bets that values fall below m would have multiplied the capital by
    1 / (1 - level). That happens with probability 1 - level at most if m is the mean (Ville's inequality).

    Args:
        values: independent, in an order that does not depend on them.
        low, high: where the law lives.
        level: confidence, such as 0.95.

    Raises:
        EvidenceError: a value is missing or outside.
    """
    unit = (checked(values, low, high) - low) / (high - low)
    left, right = float(unit.mean()), 1.0
    while right - left > _PRECISION:
        middle = (left + right) / 2
        if rejects_mean(unit, middle, level):
            right = middle
        else:
            left = middle
    return low + right * (high - low)


def rejects_mean(unit: np.ndarray, mean: float, level: float) -> np.ndarray:
    """Whether the betting test refutes that a law on [0, 1] has this mean or a larger one.

    Args:
        unit: (..., n) values in [0, 1]; leading axes are separate data sets.
        mean: the hypothesis, below 1.
        level: confidence.

    Returns:
        (...) booleans.
    """
    bets = np.minimum(_bets(unit, level), BOLDNESS / (1 - mean))
    capital = np.log1p(bets * (mean - unit)).cumsum(axis=-1)
    decided: np.ndarray = capital.max(axis=-1) >= -np.log1p(-level)
    return decided


def _bets(unit: np.ndarray, level: float) -> np.ndarray:
    """Return each bet's size, from what came before it alone (equation 26 there, for a fixed sample size)."""
    count = unit.shape[-1]
    spread = np.sqrt(2 * -np.log1p(-level) / (count * past_variance(unit)))
    return np.asarray(spread)


def past_variance(unit: np.ndarray) -> np.ndarray:
    """Return, for every value on the last axis, the variance of those before it, begun with one value at 1/2 +- 1/2."""
    steps = np.arange(1, unit.shape[-1] + 1)
    means = (0.5 + unit.cumsum(axis=-1)) / (steps + 1)
    variances = (0.25 + np.square(unit - means).cumsum(axis=-1)) / (steps + 1)
    return np.concatenate([np.full((*unit.shape[:-1], 1), 0.25), variances[..., :-1]], axis=-1)


def capped_mean_upper_bound(values: Sequence[float], clusters: Sequence[str], cap: float, level: float) -> float:
    """Bound E[min(value, cap)] of values of at least 0, such as KL in nats; a cluster is one draw.

    The mean itself has no bound that holds for every law: a value that is rare and huge may not have been seen.
    """
    capped = np.minimum(checked(values, 0, np.inf), cap)
    return mean_upper_bound(cluster_means(capped.tolist(), clusters), 0.0, cap, level)


def exceedance_upper_bound(values: Sequence[float], clusters: Sequence[str], cap: float, level: float) -> float:
    """Bound P(value > cap) by Clopper and Pearson (1934); a cluster exceeds the cap if any of its samples does."""
    over = cluster_means((checked(values, 0, np.inf) > cap).tolist(), clusters) > 0
    return share_upper_bound(int(over.sum()), len(over), level)


def share_upper_bound(hits: int, count: int, level: float) -> float:
    """Return the exact one-sided upper limit of a probability after `hits` in `count` draws."""
    interval = stats.binomtest(hits, count, alternative="less").proportion_ci(confidence_level=level, method="exact")
    return float(interval.high)
