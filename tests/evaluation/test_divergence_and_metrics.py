"""KL against the closed form and torch's own; metrics against hand-worked cases."""

# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vtw_search.errors import UnknownNameError
from vtw_search.evaluation.divergence import kl_divergence
from vtw_search.evaluation.metrics import METRICS, Metric, anls, exact_match, find_metric, normalize, vqa_accuracy


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


TEXTS = st.one_of(st.text(max_size=8), st.text("aZ5.,!?'\"。、ｱﾞ５．é\u0301 \u200b", max_size=5))


@given(answer=TEXTS, accepted=st.lists(TEXTS, min_size=1, max_size=4), accept_empty=st.booleans())
def test_every_metric_is_in_the_unit_interval_and_full_for_a_unanimous_answer(
    answer: str, accepted: list[str], accept_empty: bool
) -> None:
    for metric in METRICS.values():
        assert 0 <= metric.score(answer, accepted, accept_empty) <= 1
        # What says nothing: white space and characters that are never seen.
        silent = all(character.isspace() or unicodedata.category(character) in ("Cc", "Cf") for character in answer)
        assert metric.score(answer, [answer] * 10, accept_empty) == (accept_empty or not silent)


@given(TEXTS)
def test_composed_and_decomposed_text_are_the_same_answer(text: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert normalize(composed) == normalize(decomposed) == normalize(normalize(text))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_silence_is_right_only_where_the_task_says_so(metric: Metric) -> None:
    accepted = ["", "", "", "cat"]
    assert [metric.score(text, accepted) for text in ("", " \n", "\u200b", "?", "!")] == [0] * 5
    assert metric.score("", accepted, accept_empty=True) == 1
    assert metric.score("dog", accepted, accept_empty=True) == 0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    "left,right",
    [
        ("?", "!"), (".5", "5"), ("．５", "５"), (",5", "5"), ("5²", "52"), ("1½", "11⁄2"), ("5", "-5"), ("+", "-"),
        ("$", "€"),
    ],
)  # fmt: skip
def test_what_differs_is_told_apart(metric: Metric, left: str, right: str) -> None:
    for answer, accepted in ((left, right), (right, left)):
        score = metric.score(answer, [accepted] * 3)
        assert score == 0 or (metric.score is anls and score < 1)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    "left,right",
    [
        ("猫。", "猫"), ("「猫」、", "猫"), ("５", "5"), ("ｶﾞ", "ガ"), ("Ｃａｔ！", "cat"), ("“Yes”…", "yes"),
        ("«oui»", "OUI"), ("¿qué?", "que\u0301"), ("بله؟", "بله"), ("नहीं।", "नहीं"), ("...5", "5"), ("'.5'", ".5"),
        ("5.", "5"), ("a\u3000b", "a b"), (".", "."), ("?!", "？！"),
    ],
)  # fmt: skip
def test_marks_and_widths_of_every_script_are_forgiven(metric: Metric, left: str, right: str) -> None:
    assert metric.score(left, [right] * 3) == metric.score(right, [left] * 3) == 1


def test_an_unknown_metric_is_named_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'exact_match'"):
        find_metric("exactmatch")
