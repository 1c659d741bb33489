"""Slices that every task has, because they follow from the content of a sample.

They are no part of a sample's digest and are not written into records: the content is, and the definitions below may
change without anything being measured again. A slice of the same name that a task brings itself counts instead.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

# The subset that a coarser grid loses; it is measured, see `search.slices`, and no task may bring it.
DOWNSAMPLING_FAILS = "downsampling_fails"
DERIVED = ("question_type", "answer_words", "image_size")
# Largest totals of pixels: one tile of a usual vision tower, and a megapixel.
_SMALL, _MEDIUM = 336**2, 1024**2


def derived_slices(prompt: str, answers: Sequence[str], pixels: int) -> Mapping[str, str]:
    """Return the slices of a sample's content.

    Args:
        prompt: the question; its first word in lower case, without punctuation around it, is its type.
        answers: accepted answers; the words of the first are counted: 1, 2, or `3_or_more`.
        pixels: of all images together: small up to 336 x 336, medium up to 1024 x 1024, or large.
    """
    first = next(iter(prompt.split()), "").strip(string.punctuation).lower()
    words = len(answers[0].split())
    size = "small" if pixels <= _SMALL else "medium" if pixels <= _MEDIUM else "large"
    values = (first or "other", "3_or_more" if words > 2 else str(words), size)
    return dict(zip(DERIVED, values, strict=True))
