"""Numbers over repeated times: percentiles, spread, and a bootstrap interval on a ratio of two sides.

The unit that is drawn again is a block A B B A, because calls of one block share what the machine did meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

CONFIDENCE: Final = 0.95
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Summary:
    """Times of one side.

    Attributes:
        values_ms: all of them, in the order of the calls.
        p50_ms, p90_ms, p99_ms: percentiles, interpolated linearly.
    """

    values_ms: tuple[float, ...]
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> "Summary":
        """Summarise at least one value."""
        p50, p90, p99 = (float(value) for value in np.percentile(values_ms, (50, 90, 99)))
        return cls(tuple(values_ms), p50, p90, p99)

    def as_dict(self) -> dict[str, float]:
        """The percentiles and how many calls they are of, ready for JSON."""
        return {
            "calls": len(self.values_ms), "p50_ms": self.p50_ms, "p90_ms": self.p90_ms, "p99_ms": self.p99_ms
        }  # fmt: skip

    @property
    def relative_spread(self) -> float:
        """Interquartile range over the median."""
        low, high = np.percentile(self.values_ms, (25, 75))
        return float(high - low) / self.p50_ms


@dataclass(frozen=True)
class Interval:
    """A number and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float

    def contains(self, number: float) -> bool:
        """Whether the number lies in the interval, ends included."""
        return self.low <= number <= self.high

    def inverse(self) -> "Interval":
        """Return the interval of 1 / value: a speed-up from a ratio of times, or the other way round."""
        return Interval(1 / self.value, 1 / self.high, 1 / self.low)


@dataclass(frozen=True)
class Blocks:
    """Times of one phase: row i has the two calls of each side in the i-th block A B B A, in milliseconds."""

    reference_ms: tuple[tuple[float, float], ...]
    candidate_ms: tuple[tuple[float, float], ...]

    def __len__(self) -> int:
        return len(self.reference_ms)

    def divided_by(self, count: int) -> "Blocks":
        """Return the times of one of `count` equal steps that each call made."""
        reference, candidate = (
            tuple((first / count, second / count) for first, second in side)
            for side in (self.reference_ms, self.candidate_ms)
        )
        return Blocks(reference, candidate)

    def summaries(self) -> tuple[Summary, Summary]:
        """Return the times of reference and candidate, call by call."""
        reference, candidate = (
            Summary.of([ms for block in side for ms in block]) for side in (self.reference_ms, self.candidate_ms)
        )
        return reference, candidate

    def medians(self, rows: Sequence[int] | None = None) -> tuple[float, float]:
        """Return the median times of reference and candidate over the blocks `rows`, or over all."""
        chosen = slice(None) if rows is None else np.asarray(rows)
        sides = (self.reference_ms, self.candidate_ms)
        reference, candidate = (float(np.median(np.asarray(side)[chosen])) for side in sides)
        return reference, candidate

    def ratios(self) -> list[float]:
        """Return candidate / reference per block: within one, what drifts evenly falls on both sides alike."""
        pairs = zip(self.reference_ms, self.candidate_ms, strict=True)
        return [sum(candidate) / sum(reference) for reference, candidate in pairs]


def ratio_interval(blocks: Blocks, seed: int = 0) -> Interval:
    """Return the median over the blocks of candidate / reference, with a percentile bootstrap interval.

    Raises:
        ValueError: there are fewer than three blocks.
    """
    if len(blocks) < 3:
        raise ValueError(f"An interval needs at least 3 blocks; got {len(blocks)}. Measure more rounds.")
    ratios = np.asarray(blocks.ratios())
    value = float(np.median(ratios))
    if np.ptp(ratios) == 0:
        return Interval(value, value, value)
    return _bootstrap((ratios,), np.median, value, seed)


def combined_interval(
    phases: Sequence[Blocks], combine: Callable[[Sequence[tuple[float, float]]], float], seed: int = 0
) -> Interval:
    """Return a number made of several phases, each drawn again by its own blocks.

    Args:
        phases: of one regime, such as prefill and decode.
        combine: from the median times (reference, candidate) of each phase to the number.
        seed: of the drawing.
    """
    if shortest := [phase for phase in phases if len(phase) < 3]:
        raise ValueError(f"An interval needs at least 3 blocks; got {len(shortest[0])}. Measure more rounds.")

    def statistic(*rows: Any) -> float:
        return combine([phase.medians(chosen.astype(int)) for phase, chosen in zip(phases, rows, strict=True)])

    value = combine([phase.medians() for phase in phases])
    indices = tuple(np.arange(len(phase)) for phase in phases)
    return _bootstrap(indices, statistic, value, seed, vectorized=False)


def _bootstrap(
    data: tuple[Any, ...], statistic: Callable[..., Any], value: float, seed: int, vectorized: bool | None = None
) -> Interval:
    found = stats.bootstrap(
        data, statistic, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, method="percentile",
        rng=np.random.default_rng(seed), vectorized=vectorized,
    ).confidence_interval  # fmt: skip
    return Interval(value, float(found.low), float(found.high))
