"""What a number of images can certify at best, before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vtw_search.evaluation.bounds import mean_upper_bound, rejects_mean

# No split is larger than this; a limit that needs more is said to need more than that.
MOST_IMAGES = 1_000_000


@dataclass(frozen=True)
class Certifiable:
    """The best case of one limit.

    Attributes:
        limit: its name.
        asked: the bound that is asked for.
        images: independent images that will be tested on.
        smallest: the smallest bound that so many images can certify: nothing lost, nothing diverging.
        needed: images that the asked bound needs in this best case; None if no number is enough.
    """

    limit: str
    asked: float
    images: int
    smallest: float
    needed: int | None

    @property
    def in_reach(self) -> bool:
        """Whether the limit can be certified at all."""
        return self.smallest <= self.asked

    @property
    def text(self) -> str:
        """One line for people."""
        needs = f"cannot be certified by {MOST_IMAGES} images" if self.needed is None else f"needs {self.needed}"
        return f"{self.limit} <= {self.asked:g} {needs}; {self.images} images certify {self.smallest:.3g} at best"


def certifiable_share(limit: str, asked: float, images: int, level: float) -> Certifiable:
    """Return the best case of an exact test of a probability, or of a paired drop, with nothing seen.

    The smallest bound solves (1 - bound) ** images = 1 - level: 299 images for 0.01 and 149 for 0.02 at 95 %.
    """
    alpha = 1 - level
    smallest = 1 - alpha ** (1 / images) if images else 1.0
    needed = None if asked <= 0 else 1 if asked >= 1 else math.ceil(math.log(alpha) / math.log1p(-asked))
    return Certifiable(limit, asked, images, smallest, needed)


def certifiable_mean(
    limit: str, asked: float, images: int, level: float, best: float, low: float, high: float
) -> Certifiable:
    """Return the best case of a betting bound on [low, high]: every value is `best`."""

    span = high - low
    unit_best, unit_asked = (best - low) / span, (asked - low) / span

    def holds(count: int) -> bool:
        return bool(rejects_mean(np.full(count, unit_best), unit_asked, level))

    smallest = mean_upper_bound(np.full(images, best), low, high, level) if images else high
    if asked >= high:
        return Certifiable(limit, asked, images, smallest, 1)
    return Certifiable(limit, asked, images, smallest, _smallest_count(holds) if asked > best else None)


def _smallest_count(holds: Callable[[int], bool]) -> int | None:
    """Return the smallest count for which a condition holds that, once true, stays true; None if it is too large."""
    high = 1
    while not holds(high):
        high *= 2
        if high > MOST_IMAGES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
