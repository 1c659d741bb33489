"""Scores of an answer against the accepted answers, each in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vtw_search.errors import unknown_name

Metric = Callable[[str, Sequence[str]], float]


def normalize(text: str) -> str:
    """Lower-case, collapse white space and drop sentence marks and quotes at the ends, so that "Yes." equals "yes".

    Signs that can be part of an answer, such as minus, plus, per cent and currencies, stay.
    """
    return " ".join(text.lower().split()).strip(".,;:!?'\"` ")


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1 if the normalized answer equals an accepted one."""
    return float(normalize(answer) in {normalize(text) for text in accepted})


def vqa_accuracy(answer: str, accepted: Sequence[str]) -> float:
    """VQAv2's soft accuracy (Goyal et al. 2017): min(1, annotators who gave this answer / 3)."""
    agreeing = sum(normalize(text) == normalize(answer) for text in accepted)
    return min(1.0, agreeing / 3)


def anls(answer: str, accepted: Sequence[str]) -> float:
    """Average normalized Levenshtein similarity (Biten et al. 2019): best similarity, 0 below one half."""
    best = max(_similarity(normalize(answer), normalize(text)) for text in accepted)
    return best if best >= 0.5 else 0.0


def _similarity(left: str, right: str) -> float:
    longest = max(len(left), len(right))
    return 1.0 if longest == 0 else 1 - _edit_distance(left, right) / longest


def _edit_distance(left: str, right: str) -> int:
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


METRICS: dict[str, Metric] = {"anls": anls, "exact_match": exact_match, "vqa_accuracy": vqa_accuracy}
# Metrics that give 0 or 1 and nothing between, so that a paired difference is a loss, a gain or a tie.
BINARY_METRICS = frozenset({"exact_match"})


def find_metric(name: str) -> Metric:
    """Return the metric called `name`; UnknownNameError with near matches when there is none."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]
