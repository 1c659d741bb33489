"""Percentiles and intervals against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profilers.statistics import Blocks, Interval, Summary, combined_interval, ratio_interval

times = st.floats(0.1, 1000, allow_nan=False)


def blocks(reference: list[float], candidate: list[float]) -> Blocks:
    return Blocks(tuple((ms, ms) for ms in reference), tuple((ms, ms) for ms in candidate))


@given(values=st.lists(times, min_size=1, max_size=30))
def test_a_summary_keeps_all_values(values: list[float]) -> None:
    found = Summary.of(values)
    assert found.values_ms == tuple(values)
    assert found.p50_ms == pytest.approx(np.median(values))
    assert min(values) <= found.p50_ms <= found.p90_ms <= found.p99_ms <= max(values)


def test_percentiles_of_a_known_row() -> None:
    found = Summary.of([float(value) for value in range(101)])
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == (50.0, 90.0, 99.0)
    assert found.relative_spread == 1.0


def test_equal_blocks_have_an_interval_without_width() -> None:
    found = ratio_interval(blocks([4.0] * 5, [3.0] * 5))
    assert found == Interval(0.75, 0.75, 0.75)


def test_the_interval_of_a_median_lies_where_order_statistics_say() -> None:
    """The percentile bootstrap of a median picks order statistics; of 0..20 those of ranks 6 and 14 or next to them."""
    found = ratio_interval(blocks([1.0] * 21, [100.0 + value for value in range(21)]))
    assert found.value == 110.0
    assert 104 <= found.low <= 107
    assert 113 <= found.high <= 116


def test_the_ratio_is_taken_within_blocks() -> None:
    found = ratio_interval(blocks([1.0, 10.0, 100.0, 1000.0], [2.0, 20.0, 200.0, 2000.0]))
    assert found == Interval(2.0, 2.0, 2.0)


def test_phases_are_combined_by_their_medians() -> None:
    prefill, decode = blocks([100.0] * 4, [50.0] * 4), blocks([10.0] * 6, [8.0] * 6)
    found = combined_interval([prefill, decode], lambda sides: (sides[0][0] + 5 * sides[1][0]) / sum(sides[0]))
    assert found == Interval(1.0, 1.0, 1.0)


def test_noise_of_each_phase_widens_the_combination() -> None:
    steady, noisy = blocks([10.0] * 9, [10.0] * 9), blocks([8.0, 9.0, 10.0, 11.0, 12.0] * 2, [10.0] * 10)

    def total(sides: object) -> float:
        return sum(side[0] for side in sides) / sum(side[1] for side in sides)  # type: ignore[attr-defined]

    found = combined_interval([steady, noisy], total)
    assert found.low < found.value == 1.0 < found.high
    assert combined_interval([steady, steady], total) == Interval(1.0, 1.0, 1.0)


@given(low=times, width=times)
def test_the_inverse_of_an_interval_turns_its_ends(low: float, width: float) -> None:
    found = Interval(low + width / 2, low, low + width).inverse()
    assert found.low <= found.value <= found.high
    assert found.inverse().low == pytest.approx(low)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_blocks_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"at least 3 blocks; got {count}\."):
        ratio_interval(blocks([1.0] * count, [1.0] * count))
    with pytest.raises(ValueError, match=rf"at least 3 blocks; got {count}\."):
        combined_interval([blocks([1.0] * count, [1.0] * count)], lambda sides: 1.0)
