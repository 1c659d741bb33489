"""Bounds that limits are tested with: closed forms, brute force, and what must hold for all data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vtw_search.errors import EvidenceError
from vtw_search.evaluation.bounds import (
    BOLDNESS,
    capped_mean_upper_bound,
    cluster_means,
    exceedance_upper_bound,
    mean_upper_bound,
    rejects_mean,
    share_upper_bound,
)

unit_values = st.lists(st.floats(0, 1), min_size=1, max_size=60)
levels = st.floats(0.6, 0.99)


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def capital(unit: list[float], mean: float, level: float) -> float:
    """The gambler's largest log capital, step by step as the paper writes it."""
    total = best = 0.0
    for step, value in enumerate(unit, start=1):
        past = unit[: step - 1]
        # Means and variances run along the data; both begin with one value.
        running = [(0.5 + sum(unit[:k])) / (k + 1) for k in range(1, step)]
        variance = (0.25 + sum((x - m) ** 2 for x, m in zip(past, running, strict=True))) / step
        bet = min(math.sqrt(2 * math.log(1 / (1 - level)) / (len(unit) * variance)), BOLDNESS / (1 - mean))
        total += math.log(1 + bet * (mean - value))
        best = max(best, total)
    return best


@settings(max_examples=40)
@given(unit_values, levels)
def test_the_bound_is_where_the_gambler_has_won_enough(values: list[float], level: float) -> None:
    bound, needed = mean_upper_bound(values, 0, 1, level), math.log(1 / (1 - level))
    if bound < 1 - 1e-5:
        assert capital(values, bound + 1e-5, level) >= needed - 1e-6
    if bound > np.mean(values) + 1e-5:
        assert capital(values, bound - 1e-5, level) < needed + 1e-6


@given(unit_values, levels)
def test_the_bound_lies_between_the_mean_and_the_largest_possible_value(values: list[float], level: float) -> None:
    assert np.mean(values) <= mean_upper_bound(values, 0, 1, level) <= 1


@given(unit_values, levels, st.floats(0, 0.009))
def test_more_confidence_costs_width(values: list[float], level: float, more: float) -> None:
    # Bets depend on the level, so that the two gamblers are not the same; the bounds follow their order all the same.
    assert mean_upper_bound(values, 0, 1, level) <= mean_upper_bound(values, 0, 1, level + more) + 2e-3


@given(st.floats(0, 1), st.integers(1, 300), levels)
def test_more_of_the_same_tightens(value: float, count: int, level: float) -> None:
    once, twice = (mean_upper_bound([value] * n, 0, 1, level) for n in (count, 2 * count))
    assert twice <= once + 1e-5


@given(unit_values, st.floats(-5, 5), st.floats(0.1, 20))
def test_the_bound_moves_with_the_range(values: list[float], low: float, span: float) -> None:
    moved = np.clip([low + span * value for value in values], low, low + span)
    expected = low + span * mean_upper_bound(values, 0, 1, 0.95)
    assert mean_upper_bound(moved, low, low + span, 0.95) == pytest.approx(expected, abs=span * 1e-4)


@pytest.mark.parametrize("mean", [0.05, 0.2, 0.35, 0.6])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_level_is_kept_exactly_over_all_outcomes(mean: float, level: float) -> None:
    """The hardest law for a bounded mean: 0 or 1. Every outcome of 14 draws with its probability."""
    outcomes = np.array(list(itertools.product((0.0, 1.0), repeat=14)))
    probability = np.prod(np.where(outcomes == 1, mean, 1 - mean), axis=1)
    wrong = probability[rejects_mean(outcomes, mean, level)].sum()
    assert wrong <= 1 - level
    assert wrong > 0 or mean < 0.3


@given(st.integers(1, 400), levels)
def test_the_share_of_nothing_seen_has_a_closed_form(count: int, level: float) -> None:
    assert share_upper_bound(0, count, level) == pytest.approx(1 - (1 - level) ** (1 / count))


@given(st.integers(1, 200), st.integers(0, 200), levels)
def test_the_share_bound_is_clopper_pearsons(count: int, hits: int, level: float) -> None:
    hits = min(hits, count)
    bound = share_upper_bound(hits, count, level)
    assert hits / count <= bound <= 1
    if hits < count:
        # So few hits have exactly probability 1 - level under the bound.
        assert stats.binom.cdf(hits, count, bound) == pytest.approx(1 - level)
        assert bound <= share_upper_bound(hits + 1, count, level)


def test_a_cluster_is_one_draw() -> None:
    values, clusters = [0.0, 0.3, 0.0, 0.1], ["b", "a", "b", "a"]
    assert cluster_means(values, clusters).tolist() == pytest.approx([0.0, 0.2])
    assert capped_mean_upper_bound(values, clusters, 0.2, 0.95) == pytest.approx(
        mean_upper_bound([0.0, 0.15], 0, 0.2, 0.95), abs=1e-6
    )
    # One of two images has a sample above the cap.
    assert exceedance_upper_bound(values, clusters, 0.2, 0.95) == share_upper_bound(1, 2, 0.95)


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("cap", [0.1, 0.2, 0.03])
def test_an_image_whose_samples_are_all_above_the_cap_is_at_the_cap(cap: float, count: int) -> None:
    """Rounding, as in (0.1 + 0.1 + 0.1) / 3 > 0.1, must not put its mean outside the range."""
    values, clusters = [cap + 1] * count + [0.0], ["a"] * count + ["b"]
    expected = mean_upper_bound([cap, 0.0], 0, cap, 0.95)
    assert capped_mean_upper_bound(values, clusters, cap, 0.95) == pytest.approx(expected, abs=1e-6)


def test_copies_of_a_sample_in_its_cluster_add_no_confidence() -> None:
    once = capped_mean_upper_bound([0.01] * 50, names(50), 0.1, 0.95)
    assert capped_mean_upper_bound([0.01] * 500, names(50) * 10, 0.1, 0.95) == pytest.approx(once)
    assert exceedance_upper_bound([0.01] * 500, names(50) * 10, 0.1, 0.95) == share_upper_bound(0, 50, 0.95)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")], [-0.1]])
def test_what_is_not_there_is_an_error(values: list[float]) -> None:
    for bound in (capped_mean_upper_bound, exceedance_upper_bound):
        with pytest.raises(EvidenceError):
            bound(values, names(len(values)), 0.1, 0.95)
