"""What sample sizes can certify, against the bounds themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtw_search.evaluation.bounds import mean_upper_bound, share_upper_bound
from vtw_search.evaluation.certify import certifiable_mean, certifiable_share


@pytest.mark.parametrize("limit,images", [(0.01, 299), (0.02, 149), (0.05, 59)])
def test_images_needed_for_a_share(limit: float, images: int) -> None:
    found = certifiable_share("accuracy_drop", limit, images, 0.95)
    assert (found.needed, found.in_reach) == (images, True)
    assert not certifiable_share("accuracy_drop", limit, images - 1, 0.95).in_reach
    assert str(images) in found.text


@given(st.integers(1, 500), st.floats(0.6, 0.99))
def test_the_smallest_share_is_what_nothing_seen_gives(images: int, level: float) -> None:
    found = certifiable_share("tail", 0.5, images, level)
    assert found.smallest == pytest.approx(share_upper_bound(0, images, level))


@settings(deadline=None)
@given(st.integers(1, 500), st.sampled_from([0.005, 0.02, 0.3]), st.sampled_from([(0.0, 0.0, 1.0), (0.0, -1.0, 1.0)]))
def test_images_needed_for_a_mean(images: int, asked: float, law: tuple[float, float, float]) -> None:
    best, low, high = law
    found = certifiable_mean("kl", asked, images, 0.95, best, low, high)
    assert found.smallest == mean_upper_bound(np.full(images, best), low, high, 0.95)
    assert found.needed is not None
    enough, fewer = (mean_upper_bound(np.full(n, best), low, high, 0.95) for n in (found.needed, found.needed - 1 or 1))
    assert enough <= asked + 1e-5
    assert fewer > asked - 1e-5 or found.needed == 1


def test_a_limit_of_zero_is_out_of_reach_for_every_number_of_images() -> None:
    for found in (certifiable_share("drop", 0, 10_000, 0.95), certifiable_mean("kl", 0, 10_000, 0.95, 0, 0, 1)):
        assert found.needed is None
        assert not found.in_reach


def test_no_image_certifies_nothing() -> None:
    assert certifiable_share("drop", 0.5, 0, 0.95).smallest == 1
    assert certifiable_mean("kl", 0.5, 0, 0.95, 0, 0, 2).smallest == 2
