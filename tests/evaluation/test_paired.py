"""The exact test of a paired drop: closed forms, and its size by summing over all outcomes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vtw_search.errors import EvidenceError
from vtw_search.evaluation.bounds import mean_upper_bound
from vtw_search.evaluation.paired import drop_p_value, drop_upper_bound, exact_drop_bound, is_exact


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


@pytest.mark.parametrize("limit,images", [(0.01, 299), (0.02, 149)])
def test_no_loss_certifies_the_closed_form(limit: float, images: int) -> None:
    assert exact_drop_bound(0, 0, images, 0.95) < limit < exact_drop_bound(0, 0, images - 1, 0.95)


@pytest.mark.parametrize("count", [1, 2, 30])
def test_where_every_pair_lost_nothing_is_excluded(count: int) -> None:
    assert exact_drop_bound(count, 0, count, 0.95) == 1.0
    assert drop_upper_bound([1.0] * count, names(count), 0.95, binary=True).upper == 1.0


@given(st.integers(1, 400), st.floats(0.001, 0.5))
def test_without_a_differing_pair_the_p_value_is_a_power(count: int, drop: float) -> None:
    assert drop_p_value(0, 0, count, drop) == pytest.approx((1 - drop) ** count)


@pytest.mark.parametrize("count,drop", list(itertools.product((12, 30), (0.05, 0.2))))
def test_the_test_keeps_its_level_for_every_law_on_the_edge(count: int, drop: float) -> None:
    alpha = 0.05
    outcomes = [(loss, gain) for loss in range(count + 1) for gain in range(count + 1 - loss)]
    rejected = [outcome for outcome in outcomes if drop_p_value(*outcome, count, drop) <= alpha]
    # A grid of its own, finer than the one inside the test.
    gains = np.linspace(0, (1 - drop) / 2, 173)
    shares = np.stack([gains + drop, gains, 1 - 2 * gains - drop], axis=1)
    sizes = [stats.multinomial.pmf([[*each, count - sum(each)] for each in rejected], count, row) for row in shares]
    sizes = [float(np.sum(size)) for size in sizes]
    assert max(sizes) <= alpha * 1.001


@settings(deadline=None, max_examples=15)
@given(st.integers(5, 60), st.integers(0, 10), st.integers(0, 10))
def test_the_bound_is_above_the_estimate_and_orders_outcomes(count: int, losses: int, gains: int) -> None:
    losses, gains = min(losses, count // 3), min(gains, count // 3)
    bound = exact_drop_bound(losses, gains, count, 0.95)
    assert (losses - gains) / count <= bound <= 1
    assert bound <= exact_drop_bound(losses + 1, gains, count, 0.95) + 1e-5
    assert bound <= exact_drop_bound(losses, gains, count, 0.99) + 1e-5
    # Gains speak for the candidate, so that this is never worse than the limit of losses alone.
    assert bound >= exact_drop_bound(losses, gains + 1, count, 0.95) - 1e-5


@pytest.mark.parametrize("losses,gains", [(3, 2), (1, 0), (12, 16)])
def test_a_bound_is_within_the_asked_drop_only_if_that_is_refuted(losses: int, gains: int) -> None:
    """P-values jump: 3 losses and 2 gains of 300 refute a drop of 0.019, and not one of 0.02."""
    refuted = drop_p_value(losses, gains, 300, 0.02) <= 0.05
    assert refuted == (losses == 1)
    assert (exact_drop_bound(losses, gains, 300, 0.95, asked=0.02) <= 0.02) == refuted
    drops = [1.0] * losses + [-1.0] * gains + [0.0] * (300 - losses - gains)
    assert (drop_upper_bound(drops, names(300), 0.95, True, asked=0.02).upper <= 0.02) == refuted


def test_more_pairs_without_a_loss_tighten() -> None:
    bounds = [exact_drop_bound(0, 0, count, 0.95) for count in (10, 50, 149, 299, 1000)]
    assert bounds == sorted(bounds, reverse=True)


def test_binary_scores_with_one_sample_per_image_are_tested_exactly() -> None:
    drops = [1.0, -1.0, *[0.0] * 98]
    found = drop_upper_bound(drops, names(100), 0.95, binary=True)
    assert found == (0.0, exact_drop_bound(1, 1, 100, 0.95), 100, "exact")
    # A second sample of few images is left out, whatever it says.
    assert drop_upper_bound([*drops, 1.0], [*names(100), "5"], 0.95, binary=True) == found


def test_fractional_scores_and_many_samples_per_image_are_bounded_by_betting() -> None:
    drops = [0.25, -0.5, *[0.0] * 98]
    found = drop_upper_bound(drops, names(100), 0.95, binary=False)
    assert (found.upper, found.method) == (mean_upper_bound(drops, -1, 1, 0.95), "betting")
    repeated = drop_upper_bound([1.0, 0.0] * 50, [str(number // 2) for number in range(100)], 0.95, binary=True)
    assert repeated == (0.5, mean_upper_bound([0.5] * 50, -1, 1, 0.95), 50, "betting")


def test_no_method_collapses_when_no_pair_differs() -> None:
    for binary in (True, False):
        assert drop_upper_bound([0.0] * 200, names(200), 0.95, binary).upper > 0.01


def test_the_method_follows_from_the_design() -> None:
    assert is_exact(names(10), binary=True)
    assert not is_exact(names(10), binary=False)
    assert not is_exact(names(10) * 2, binary=True)


@pytest.mark.parametrize("drops", [[], [float("nan"), 0.0], [2.0, 0.0], [0.5, 0.0]])
def test_impossible_drops_are_errors(drops: list[float]) -> None:
    with pytest.raises(EvidenceError):
        drop_upper_bound(drops, names(len(drops)), 0.95, binary=True)
