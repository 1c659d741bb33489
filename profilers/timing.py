"""Time of a candidate relative to a reference, measured side by side.

The two are called in rounds A B B A (A the reference, B the candidate) in one process, so that what changes slowly,
such as clock rates, temperature or other load, falls on both alike. All values are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from statistics import median, quantiles

import torch

from profilers.stopwatch import Call, CpuStopwatch, plain, stopwatch_of


@dataclass(frozen=True)
class PairTiming:
    """Times of reference and candidate; the values at one index are a pair, adjacent in time.

    Attributes:
        reference_ms: milliseconds of each call of the reference, in the order of the calls.
        candidate_ms: milliseconds of each call of the candidate, likewise.

    Raises:
        ValueError: the two differ in length, hold fewer than two values, or hold one that is not positive and finite.
    """

    reference_ms: tuple[float, ...]
    candidate_ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.reference_ms) != len(self.candidate_ms) or len(self.reference_ms) < 2:
            raise ValueError(
                "Times come in pairs, at least two; "
                f"got {len(self.reference_ms)} of the reference and {len(self.candidate_ms)} of the candidate. "
                "Time both equally often."
            )
        if bad := [ms for ms in self.reference_ms + self.candidate_ms if not (isfinite(ms) and ms > 0)]:
            raise ValueError(
                f"A time must be positive and finite; got {bad[0]} ms. Use a finer clock, or time several calls as one."
            )

    @property
    def reference_median_ms(self) -> float:
        """Median time of the reference, in milliseconds."""
        return median(self.reference_ms)

    @property
    def candidate_median_ms(self) -> float:
        """Median time of the candidate, in milliseconds."""
        return median(self.candidate_ms)

    @property
    def ratio(self) -> float:
        """Median over the pairs of candidate / reference; below 1 the candidate is faster."""
        return median(self._ratios())

    @property
    def ratio_spread(self) -> float:
        """Interquartile range of candidate / reference over the pairs."""
        first, _, third = quantiles(self._ratios(), n=4, method="inclusive")
        return third - first

    def as_dict(self) -> dict[str, float | list[float]]:
        """All times and what follows from them, ready for JSON."""
        return {
            "reference_ms": list(self.reference_ms),
            "candidate_ms": list(self.candidate_ms),
            "reference_median_ms": self.reference_median_ms,
            "candidate_median_ms": self.candidate_median_ms,
            "ratio": self.ratio,
            "ratio_spread": self.ratio_spread,
        }

    def _ratios(self) -> list[float]:
        pairs = zip(self.reference_ms, self.candidate_ms, strict=True)
        return [candidate / reference for reference, candidate in pairs]


def time_pair(
    reference: Call,
    candidate: Call,
    *,
    device: torch.device | str,
    repeats: int = 10,
    warmup: int = 2,
    clock: Callable[[], float] | None = None,
) -> PairTiming:
    """Times two callables in alternating rounds: reference, candidate, candidate, reference.

    On CUDA each call lies between two events on the current stream of the device, and the host waits once, at the end
    of a round, so the callables should not wait either. On the CPU each call lies between two readings of a clock.

    Args:
        reference: what to compare with.
        candidate: what is compared. An error in either ends the timing and reaches the caller.
        device: the CPU or CUDA device that does the work.
        repeats: timed rounds; each gives two pairs.
        warmup: rounds run before and not timed.
        clock: seconds, never falling; `time.perf_counter` if not given. Only for the CPU.

    Returns:
        2 x `repeats` pairs.

    Raises:
        ValueError: an argument is out of range, or a clock was given for CUDA; or see `PairTiming`.
    """
    device = torch.device(device)
    _check(device, repeats, warmup, clock)
    stopwatch = stopwatch_of(device) if clock is None else CpuStopwatch(clock)
    works = [plain(call) for call in (reference, candidate, candidate, reference)]
    rounds = [stopwatch.block(works).times_ms for _ in range(warmup + repeats)][warmup:]
    return PairTiming(
        reference_ms=tuple(ms for first, _, _, last in rounds for ms in (first, last)),
        candidate_ms=tuple(ms for _, first, last, _ in rounds for ms in (first, last)),
    )


def _check(device: torch.device, repeats: int, warmup: int, clock: Callable[[], float] | None) -> None:
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1; got {repeats}. Ask for one timed round or more.")
    if warmup < 0:
        raise ValueError(f"warmup must be at least 0; got {warmup}. Pass 0 to time from the first call.")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda; got {device}. Move the work to one of them.")
    if device.type == "cuda" and clock is not None:
        raise ValueError(f"A clock only times the cpu; got one for {device}. Leave clock out to use CUDA events.")
