"""How long and how often works are timed, and how they are warmed up before."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

from profilers.stopwatch import Stopwatch, Work

MAX_SECONDS: Final = 10.0
LEAST_ROUNDS: Final = 3
"""Blocks that an interval needs."""


@dataclass(frozen=True)
class ProtocolSettings:
    """How long and how often.

    Attributes:
        min_rounds: blocks per candidate at least.
        min_seconds: of timed rounds at least.
        window: calls in one window of the warm-up.
        settled: largest relative difference of the medians of two windows that agree.
        max_windows: windows after which a warm-up is given up as unsettled.
        max_spread: interquartile range over median above which times are called unreliable.
        max_seconds: per candidate, after which times that have not settled are waited for no longer. Steady ones get
            all their rounds, however slow the work is.
        seed: of the order of the candidates.

    Raises:
        ValueError: a value is out of range.
    """

    min_rounds: int = 10
    min_seconds: float = 1.0
    window: int = 3
    settled: float = 0.05
    max_windows: int = 20
    max_spread: float = 0.2
    max_seconds: float = MAX_SECONDS
    seed: int = 0

    def __post_init__(self) -> None:
        least = {
            "min_rounds": LEAST_ROUNDS, "min_seconds": 0, "window": 1, "settled": 0, "max_windows": 2, "max_spread": 0,
            "max_seconds": 0,
        }  # fmt: skip
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be at least {bound}; got {getattr(self, name)}. Give a larger one.")


@dataclass(frozen=True)
class Patience:
    """How long times are waited for to settle.

    Attributes:
        seconds: since `began`, by `elapsed`.
        crowded: whether others keep the machine busy.
    """

    seconds: float
    elapsed: Callable[[], float]
    crowded: Callable[[], bool]
    began: float

    def ended(self) -> str | None:
        """Return why nothing is waited for any longer; None as long as it is."""
        if self.elapsed() - self.began >= self.seconds:
            return f"{self.seconds:g} s were over"
        return "others kept the machine busy" if self.crowded() else None


@dataclass(frozen=True)
class WarmUp:
    """How a work was warmed up.

    Attributes:
        calls: that it took.
        settled: whether the medians of the last two windows agreed.
        ended: why it was given up before its last window; None if it was not.
    """

    calls: int
    settled: bool
    ended: str | None = None


def warm_up(
    work: Work, stopwatch: Stopwatch, settings: ProtocolSettings, ended: Callable[[], str | None] = lambda: None
) -> WarmUp:
    """Call a work until the medians of its last two windows agree, or `ended` gives a reason to give up."""
    before, reason = None, None
    for number in range(1, settings.max_windows + 1):
        now = median(ms for _ in range(settings.window) for ms in stopwatch.block([work]).times_ms)
        if before is not None:
            if abs(now - before) <= settings.settled * max(abs(before), abs(now)):
                return WarmUp(number * settings.window, True)
            if number < settings.max_windows and (reason := ended()):
                break
        before = now
    return WarmUp(number * settings.window, False, reason)
