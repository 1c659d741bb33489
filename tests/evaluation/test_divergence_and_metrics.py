"""KL against the closed form and torch's own; metrics against hand-worked cases."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vtw_search.errors import UnknownNameError
from vtw_search.evaluation.divergence import kl_divergence
from vtw_search.evaluation.metrics import METRICS, anls, exact_match, find_metric, vqa_accuracy


@given(seed=st.integers(0, 10_000), size=st.integers(2, 50), scale=st.floats(0.1, 20))
def test_kl_equals_the_definition_in_double_precision(seed: int, size: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, 3, size, generator=generator) * scale
    p, q = left.double().softmax(-1), right.double().log_softmax(-1)
    expected = (p * (left.double().log_softmax(-1) - q)).sum(-1)
    torch.testing.assert_close(kl_divergence(left, right).double(), expected, rtol=1e-4, atol=1e-5)


def test_kl_has_a_direction_and_is_zero_only_for_equals() -> None:
    left, right = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([2.0, 0.0, 0.0])
    assert kl_divergence(left, right) != kl_divergence(right, left)
    assert kl_divergence(left, left + 3.0) == pytest.approx(0.0, abs=1e-6)


def test_a_token_without_probability_contributes_nothing() -> None:
    left = torch.tensor([0.0, float("-inf")])
    assert kl_divergence(left, torch.tensor([0.0, 0.0])) == pytest.approx(torch.log(torch.tensor(2.0)).item())


def test_exact_match_forgives_case_space_and_punctuation() -> None:
    assert exact_match(" Yes. ", ["yes"]) == 1
    assert exact_match("no", ["yes", "NO!"]) == 1
    assert exact_match("yes no", ["yes"]) == 0
    assert exact_match("5", ["-5"]) == exact_match("c", ["C++"]) == exact_match("5", ["5%"]) == 0


@pytest.mark.parametrize("agreeing,score", [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (10, 1)])
def test_vqa_accuracy_counts_annotators(agreeing: int, score: float) -> None:
    assert vqa_accuracy("cat", ["cat"] * agreeing + ["dog"] * (10 - agreeing)) == pytest.approx(score)


def test_anls_on_worked_cases() -> None:
    assert anls("kitten", ["sitting"]) == pytest.approx(1 - 3 / 7)
    assert anls("abc", ["xyz"]) == 0
    assert anls("same", ["other", "same"]) == 1


@given(answer=st.text(max_size=8), accepted=st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_every_metric_is_in_the_unit_interval_and_full_for_a_unanimous_answer(answer: str, accepted: list[str]) -> None:
    for metric in METRICS.values():
        assert 0 <= metric(answer, accepted) <= 1
        assert metric(answer, [answer] * 10) == 1


def test_an_unknown_metric_is_named_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'exact_match'"):
        find_metric("exactmatch")
