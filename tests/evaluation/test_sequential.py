"""Racing: how often a candidate on its limit is stopped, at any of many looks; and that bad ones are."""

from __future__ import annotations

import numpy as np
import pytest

from vtw_search.errors import EvidenceError
from vtw_search.evaluation.sequential import Race

REPETITIONS, MOST_WRONG = 2000, 123  # the 99 % quantile of a binomial with 2,000 draws of 5 %


@pytest.mark.parametrize("count", [200, 600])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_a_lognormal_candidate_on_its_limit_is_rarely_stopped(count: int, sigma: float) -> None:
    rng = np.random.default_rng([20261124, count, int(sigma)])
    values = np.minimum(np.exp(sigma * rng.standard_normal((REPETITIONS, count)) - 5), 0.1)
    limit = np.minimum(np.exp(sigma * rng.standard_normal(4_000_000) - 5), 0.1).mean()
    stopped = Race(float(limit), 0.0, 0.1, 0.95).evidence(values).max(axis=1) >= 1
    assert stopped.sum() <= MOST_WRONG


@pytest.mark.parametrize("count", [200, 600])
@pytest.mark.parametrize("loss,gain", [(0.02, 0.0), (0.05, 0.03), (0.2, 0.18)])
def test_a_drop_on_its_limit_is_rarely_stopped(count: int, loss: float, gain: float) -> None:
    rng = np.random.default_rng([20261124, count, int(100 * loss)])
    drops = rng.choice([1.0, -1.0, 0.0], size=(REPETITIONS, count), p=[loss, gain, 1 - loss - gain])
    stopped = Race(loss - gain, -1.0, 1.0, 0.95).evidence(drops).max(axis=1) >= 1
    assert 0 <= stopped.sum() <= MOST_WRONG


@pytest.mark.parametrize("count", [200, 600])
def test_a_rare_spike_on_its_limit_is_rarely_stopped(count: int) -> None:
    rng = np.random.default_rng([20261124, count])
    values = 2.0 * (rng.random((REPETITIONS, count)) < 0.005)
    stopped = Race(0.005 * 2, 0.0, 2.0, 0.95).evidence(values).max(axis=1) >= 1
    assert stopped.sum() <= MOST_WRONG


def test_a_bad_candidate_is_stopped_early() -> None:
    rng = np.random.default_rng(0)
    race = Race(0.01, 0.0, 0.1, 0.95)
    values = np.exp(rng.standard_normal(200)) * 0.1
    stops = next(count for count in range(1, 201) if race(values[:count]) == "stop")
    assert stops <= 20
    assert race(np.full(200, 0.005)) == "go on"


def test_a_stop_is_never_taken_back() -> None:
    race = Race(0.01, 0.0, 0.1, 0.95)
    assert race([0.1] * 20) == "stop"
    assert race([0.1] * 20 + [0.0] * 500) == "stop"


def test_a_limit_of_zero_is_broken_by_any_divergence() -> None:
    assert Race(0.0, 0.0, 0.1, 0.95)([0.0] * 50) == "go on"
    assert Race(0.0, 0.0, 0.1, 0.95)([0.0] * 50 + [0.05]) == "stop"


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(EvidenceError):
        Race(0.01, 0.0, 0.1, 0.95)([0.0, float("nan")])
