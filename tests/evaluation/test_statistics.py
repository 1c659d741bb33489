"""Intervals: hand-worked cases, and their coverage in simulations with fixed seeds."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtw_search.evaluation.statistics import (
    bootstrap_interval,
    cluster_values,
    mean_interval,
    paired_difference_interval,
)


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_a_cluster_counts_as_one_value() -> None:
    # Sums over the mean cluster size of 4 / 3.
    assert cluster_values([1, 0, 1, 1], ["a", "a", "b", "c"]).tolist() == pytest.approx([0.75, 0.75, 0.75])


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcde")), min_size=1, max_size=40))
def test_the_mean_over_clusters_is_the_mean_over_samples(pairs: list[tuple[float, str]]) -> None:
    values, clusters = zip(*pairs, strict=True)
    assert cluster_values(values, clusters).mean() == pytest.approx(np.mean(values))


def test_intervals_hold_the_point_estimate_when_clusters_differ_in_size() -> None:
    scores, clusters = [0.0] * 50 + [1.0] * 10, ["big"] * 50 + names(10)
    for interval in (mean_interval(scores, clusters), bootstrap_interval(scores, clusters)):
        assert interval.low <= np.mean(scores) <= interval.high


def test_the_paired_interval_keeps_a_width_when_no_pair_differs() -> None:
    low, high = paired_difference_interval([0.0] * 100, names(100))
    # Agresti-Min with no discordant pair: centre 0, variance 1 / (n + 2)^2.
    margin = NormalDist().inv_cdf(0.975) / 102
    assert (low, high) == pytest.approx((-margin, margin))


@pytest.mark.parametrize("lost,won", [(0, 0), (3, 0), (5, 2), (10, 10)])
def test_the_paired_interval_is_agresti_and_mins(lost: int, won: int) -> None:
    n = 80
    differences = [1.0] * lost + [-1.0] * won + [0.0] * (n - lost - won)
    b, c, total = lost + 0.5, won + 0.5, n + 2
    center = (b - c) / total
    margin = NormalDist().inv_cdf(0.975) * np.sqrt((b + c) - (b - c) ** 2 / total) / total
    assert paired_difference_interval(differences, names(n)) == pytest.approx((center - margin, center + margin))


@pytest.mark.parametrize("drop", [0.01, 0.05, 0.2])
def test_the_paired_interval_covers_the_truth(drop: float) -> None:
    rng, n = np.random.default_rng(1), 200
    hits = 0
    for _ in range(500):
        differences = rng.choice([1.0, -1.0, 0.0], size=n, p=[drop + 0.01, 0.01, 0.98 - drop])
        low, high = paired_difference_interval(differences, names(n))
        hits += low <= drop <= high
    assert hits >= 460  # 95 % of 500 is 475; 460 is three standard deviations below


@pytest.mark.parametrize("p,n", [(0.0, 50), (1.0, 50), (0.9, 200), (0.5, 30)])
def test_the_mean_interval_is_wilsons(p: float, n: int) -> None:
    hits = round(p * n)
    z = NormalDist().inv_cdf(0.975)
    # Wilson's bounds are the roots of (p_hat - x)^2 = z^2 x (1 - x) / n.
    roots = np.sort(np.roots([1 + z * z / n, -(2 * hits / n + z * z / n), (hits / n) ** 2]))
    assert mean_interval([1.0] * hits + [0.0] * (n - hits), names(n)) == pytest.approx(tuple(roots), abs=1e-9)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=40))
def test_the_bootstrap_interval_holds_the_mean(values: list[float]) -> None:
    low, high = bootstrap_interval(values, names(len(values)))
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap_interval(values, names(len(values))) == (low, high)


def test_one_cluster_says_nothing() -> None:
    assert bootstrap_interval([1.0, 2.0], ["a", "a"]) == (-np.inf, np.inf)
