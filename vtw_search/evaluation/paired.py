"""The paired loss of accuracy: an exact test for right-or-wrong scores, a betting bound for scores in between."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import xlogy

from vtw_search.errors import EvidenceError
from vtw_search.evaluation.bounds import checked, cluster_means, mean_upper_bound

_NUISANCES = 60
_SCAN = 40
_PRECISION = 1e-6
# With fewer samples per cluster than this on average, second samples are left out rather than the exact test.
_FEW_REPEATS = 1.5


class DropBound(NamedTuple):
    """An upper confidence bound of a mean paired drop.

    Attributes:
        value: the mean drop of the units.
        upper: its bound.
        units: independent units: the clusters.
        method: `exact` or `betting`.
    """

    value: float
    upper: float
    units: int
    method: str


def drop_upper_bound(
    drops: Sequence[float], clusters: Sequence[str], level: float, binary: bool, asked: float | None = None
) -> DropBound:
    """Bound the mean of reference score minus candidate score, paired by sample.

    Which method is used depends on the design alone, never on the drops, so that the level holds. For scores of 0 or 1
    and about one sample per cluster: the exact test, on the first sample of each cluster. Otherwise cluster means lie
    anywhere in [-1, 1] and are bounded by betting.

    Args:
        drops: one per sample, in [-1, 1].
        clusters: whose samples are not independent of each other (the image).
        level: confidence, such as 0.95.
        binary: whether the metric gives 0 or 1 only.
        asked: the limit that the bound is held against, as for `exact_drop_bound`.

    Raises:
        EvidenceError: a drop is missing, impossible, or not whole although the metric is binary.
    """
    values = checked(drops, -1, 1)
    if not is_exact(clusters, binary):
        means = cluster_means(values.tolist(), clusters)
        return DropBound(float(means.mean()), mean_upper_bound(means, -1, 1, level), len(means), "betting")
    _, first = np.unique(np.asarray(clusters, dtype=str), return_index=True)
    units = values[first]
    between = units[~np.isin(units, (-1, 0, 1))]
    if between.size:
        raise EvidenceError("drops of a binary metric must be -1, 0 or 1", value=float(between[0]))
    losses, gains = int((units > 0).sum()), int((units < 0).sum())
    upper = exact_drop_bound(losses, gains, len(units), level, asked)
    return DropBound(float(units.mean()), upper, len(units), "exact")


def is_exact(clusters: Sequence[str], binary: bool) -> bool:
    """Whether `drop_upper_bound` uses the exact test for this design."""
    return binary and len(clusters) < _FEW_REPEATS * len(set(clusters))


@lru_cache(maxsize=1024)
def exact_drop_bound(losses: int, gains: int, count: int, level: float, asked: float | None = None) -> float:
    """Bound P(loss) - P(gain) from above: the largest drop that `drop_p_value` does not refute at 1 - level.

    Looked for on a grid: the p-value jumps up now and then as the drop grows, so that a drop between two that are
    refuted may not be. `asked` is on the grid, so that the bound is within it only if that very drop is refuted.
    """
    if losses == count:
        return 1.0  # no drop is refuted
    alpha, estimate = 1 - level, (losses - gains) / count
    start = max(estimate, 0.0)
    drops = start + (1 - start) * np.geomspace(1e-5, 1, _SCAN)
    if asked is not None and start < asked < 1:
        drops = np.union1d(drops, asked)
    open_ = [drop for drop in drops[:-1] if drop_p_value(losses, gains, count, drop) > alpha]
    left = open_[-1] if open_ else start
    right = float(drops[np.searchsorted(drops, left, side="right")])
    while right - left > _PRECISION:
        middle = (left + right) / 2
        if drop_p_value(losses, gains, count, middle) > alpha:
            left = middle
        else:
            right = middle
    return float(right)


def drop_p_value(losses: int, gains: int, count: int, drop: float) -> float:
    """Return the exact p-value of the hypothesis P(loss) - P(gain) >= drop, for `count` independent pairs.

    Unconditional: outcomes are ordered by the signed root of the likelihood ratio (Barndorff-Nielsen 1986), and the
    probability of all outcomes at least as extreme is maximised over the nuisance P(gain), as in Lloyd and Moldovan
    (2008), "A more powerful exact test of noninferiority from binary matched-pairs data". With no loss and no gain the
    p-value is (1 - drop) ** count.

    Args:
        losses, gains: pairs in which the candidate lost, or won.
        count: all pairs.
        drop: in (0, 1).
    """
    if not 0 < drop < 1 or losses + gains > count:
        raise EvidenceError("a drop must lie in (0, 1), losses and gains within all pairs", value=(losses, gains, drop))
    largest = _largest_losses(count, drop, float(_signed_root(losses, gains, count, drop)))
    won = np.arange(count + 1)
    gain = np.concatenate([[0.0], np.geomspace(1e-5, (1 - drop) / 2, _NUISANCES)])[:, None]
    weights = stats.binom.pmf(won, count, gain)
    loss_if_not_won = np.minimum((gain + drop) / (1 - gain), 1.0)
    sizes = (weights * stats.binom.cdf(largest, count - won, loss_if_not_won)).sum(axis=1)
    return float(min(sizes.max(), 1.0))


def _largest_losses(count: int, drop: float, root: float) -> np.ndarray:
    """Return, for 0..count gains, the most losses that are at least as extreme as `root`; -1 where none are."""
    won = np.arange(count + 1)
    low, high = np.full(count + 1, -1), count - won
    while (low < high).any():
        middle = (low + high + 1) // 2
        extreme = _signed_root(np.maximum(middle, 0), won, count, drop) >= root - 1e-9
        low, high = np.where(extreme, middle, low), np.where(extreme, high, middle - 1)
    # More gains are never less extreme; a region of that shape has its largest size on the hypothesis' edge.
    return np.minimum(np.maximum.accumulate(low), count - won)


def _signed_root(losses: np.ndarray | int, gains: np.ndarray | int, count: int, drop: float) -> np.ndarray:
    """Return the signed root of the likelihood ratio; large when the data speak for a smaller drop than `drop`."""
    same = count - losses - gains
    gain = _constrained_gain(losses, gains, count, drop)
    free = xlogy(losses, losses / count) + xlogy(gains, gains / count) + xlogy(same, same / count)
    held = xlogy(losses, gain + drop) + xlogy(gains, gain) + xlogy(same, 1 - 2 * gain - drop)
    size: np.ndarray = np.sign(drop - (losses - gains) / count) * np.sqrt(np.maximum(2 * (free - held), 0.0))
    return size


def _constrained_gain(losses: np.ndarray | int, gains: np.ndarray | int, count: int, drop: float) -> np.ndarray:
    """Return the most likely P(gain) when P(loss) = P(gain) + drop: the positive root of Tango (1998), equation 6."""
    linear = 2 * count * drop - np.asarray(losses) * (1 + drop) - np.asarray(gains) * (1 - drop)
    constant = np.asarray(gains) * drop * (1 - drop)
    root = np.sqrt(np.square(linear) + 8 * count * constant)
    # Two forms of one root; each keeps its digits for one sign of the linear term.
    positive = 2 * constant / np.where(linear > 0, linear + root, 1.0)
    found = np.where(linear > 0, positive, (root - linear) / (4 * count))
    return np.clip(found, 0.0, (1 - drop) / 2)
