"""Scores of an answer against the accepted answers, each in [0, 1]."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import regex

from vtw_search.errors import unknown_name

# Full-width and half-width forms, which are the same characters in another width. The other compatibility forms are
# not: NFKC would make 5² equal 52, and 1½ equal 11/2.
_WIDTHS = str.maketrans(
    {
        character: unicodedata.normalize("NFKC", character)
        for character in map(chr, range(0xFF00, 0xFFF0))
        if unicodedata.decomposition(character).startswith(("<wide>", "<narrow>"))
    }
)
_UNSEEN = r"\s\p{Cc}\p{Cf}"
_MARKS = rf"[{_UNSEEN}\p{{Terminal_Punctuation}}\p{{Quotation_Mark}}`¡¿…]"
# A point or comma before a digit is part of the number, unless it ends a row of dots.
_POINT = r"(?<![.,])[.,]\p{Nd}"
_UNSEEN_ENDS = regex.compile(rf"^[{_UNSEEN}]++|(?<![{_UNSEEN}])[{_UNSEEN}]++$")
# What stands before the end is looked at once: a row of marks in the middle would be tried from each of its places.
_MARKED_ENDS = regex.compile(rf"^(?:(?!{_POINT}){_MARKS})++|(?<!{_MARKS}){_MARKS}++$")


def normalize(text: str) -> str:
    """Lower-case, collapse white space and drop sentence marks and quotes at the ends, so that "Yes." equals "yes".

    Marks of every script are dropped, and full-width characters equal those of usual width. Text that is composed in
    another way (NFD) is the same text. Signs that can be part of an answer, such as minus, plus, per cent, currencies
    and the point of ".5", stay, and so does text that is nothing but marks: only blank text gives "".
    """
    folded = unicodedata.normalize("NFC", text).translate(_WIDTHS).lower()
    whole = _UNSEEN_ENDS.sub("", " ".join(unicodedata.normalize("NFC", folded).split()))
    told: str = _MARKED_ENDS.sub("", whole)
    return told or whole


def exact_match(answer: str, accepted: Sequence[str], accept_empty: bool = False) -> float:
    """1 if the normalized answer equals an accepted one."""
    return float(any(left == right for left, right in _compared(answer, accepted, accept_empty)))


def vqa_accuracy(answer: str, accepted: Sequence[str], accept_empty: bool = False) -> float:
    """VQAv2's soft accuracy (Goyal et al. 2017): min(1, annotators who gave this answer / 3)."""
    agreeing = sum(left == right for left, right in _compared(answer, accepted, accept_empty))
    return min(1.0, agreeing / 3)


def anls(answer: str, accepted: Sequence[str], accept_empty: bool = False) -> float:
    """Average normalized Levenshtein similarity (Biten et al. 2019): best similarity, 0 below one half."""
    compared = _compared(answer, accepted, accept_empty)
    best = max((_similarity(left, right) for left, right in compared), default=0.0)
    return best if best >= 0.5 else 0.0


def _compared(answer: str, accepted: Sequence[str], accept_empty: bool) -> list[tuple[str, str]]:
    """Return the answer beside each accepted one, normalized.

    A blank answer is beside none, and neither is a blank accepted one, as of an annotator who gave none: silence is
    right only where that is said, by `accept_empty`.
    """
    pairs = [(normalize(answer), normalize(text)) for text in accepted]
    return pairs if accept_empty else [pair for pair in pairs if all(pair)]


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


class Score(Protocol):
    """Scores an answer against accepted ones; a blank one is right only where it is accepted and `accept_empty`."""

    def __call__(self, answer: str, accepted: Sequence[str], accept_empty: bool = False) -> float: ...


@dataclass(frozen=True)
class Metric:
    """How answers are scored.

    Attributes:
        score: in [0, 1].
        version: raised by hand when scores change; stored answers are then scored again, and no model is run.
        binary: whether it gives 0 or 1 and nothing between, so that a paired difference is a loss, a gain or a tie.
    """

    score: Score
    version: int
    binary: bool = False


METRICS = {
    "anls": Metric(anls, version=2),
    "exact_match": Metric(exact_match, version=2, binary=True),
    "vqa_accuracy": Metric(vqa_accuracy, version=2),
}


def find_metric(name: str) -> Metric:
    """Return the metric called `name`; UnknownNameError with near matches when there is none."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]
