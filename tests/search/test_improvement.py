"""Hypervolume against counted cells; expected growth against simulation."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vtw_search.search.improvement import Front

points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=8)


def cells(found: list[tuple[int, int]], macs: int, accuracy: int) -> int:
    """Count the unit squares that a point covers."""
    return sum(
        any(cost <= x and value >= y + 1 for cost, value in found) for x in range(macs) for y in range(accuracy, 12)
    )


@given(points, st.integers(1, 12), st.integers(0, 12))
def test_hypervolume_counts_the_dominated_cells(found: list[tuple[int, int]], macs: int, accuracy: int) -> None:
    assert Front.of(found, macs, accuracy).hypervolume == cells(found, macs, accuracy)


@given(points, st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_one_more_point_is_the_front_of_all(found: list[tuple[int, int]], extra: tuple[int, int]) -> None:
    front = Front.of(found, 10, 1).and_(*extra)
    assert front.points == Front.of([*found, extra], 10, 1).points


@given(points, st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_a_sure_candidate_adds_what_it_adds(found: list[tuple[int, int]], extra: tuple[int, int]) -> None:
    front = Front.of(found, 10, 1)
    expected = front.and_(*extra).hypervolume - front.hypervolume
    gain = front.expected_gain(np.array([float(extra[0])]), np.array([float(extra[1])]), np.array([1e-9]))
    assert abs(gain[0] - expected) < 1e-6


def test_expected_growth_is_the_mean_of_simulated_growths() -> None:
    front, draws = Front.of([(2, 3), (5, 6), (7, 8)], 10, 1), np.random.default_rng(0)
    for macs, mean, deviation in ((1.0, 4.0, 2.0), (4.0, 3.0, 1.0), (6.0, 9.0, 0.5), (9.0, 5.0, 3.0)):
        growths = [
            front.and_(macs, value).hypervolume - front.hypervolume for value in draws.normal(mean, deviation, 20_000)
        ]
        gain = front.expected_gain(np.array([macs]), np.array([mean]), np.array([deviation]))[0]
        assert abs(gain - np.mean(growths)) < 4 * np.std(growths) / np.sqrt(len(growths)) + 1e-9
