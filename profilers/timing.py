"""How times are compared: warmed up until they settle, in turn in one process, in random rounds, long enough.

A round calls every candidate once, in an order drawn anew, each in a block A B B A with the reference (A). What changes
slowly, such as clock rates, temperature or other load, falls on both sides of a block alike.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from statistics import median

from profilers.statistics import Blocks, Interval, Summary, ratio_interval
from profilers.stopwatch import Stopwatch, Work


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
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"min_rounds": 3, "min_seconds": 0, "window": 1, "settled": 0, "max_windows": 2, "max_spread": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be at least {bound}; got {getattr(self, name)}. Give a larger one.")


@dataclass(frozen=True)
class Compared:
    """A candidate against the reference.

    Attributes:
        blocks: all times.
        ratio: candidate / reference over the blocks, with its interval; below 1 the candidate is faster.
        warmup_calls: calls of the candidate before timing.
        problems: why the times should not be relied upon; empty if nothing speaks against them.
    """

    blocks: Blocks
    ratio: Interval
    warmup_calls: int
    problems: tuple[str, ...]

    @property
    def reference(self) -> Summary:
        """Times of the reference."""
        return self.blocks.summaries()[0]

    @property
    def candidate(self) -> Summary:
        """Times of the candidate."""
        return self.blocks.summaries()[1]

    @property
    def no_difference(self) -> bool:
        """Whether the interval of the ratio holds 1."""
        return self.ratio.contains(1.0)


class UnsteadyClockError(RuntimeError):
    """The clock jumped in so many blocks that too few are left to tell anything."""

    def __init__(self, steady: int, jumps: int) -> None:
        super().__init__(
            f"At least 3 blocks must have a steady clock; got {steady}, and {jumps} in which it jumped. Keep the "
            "machine from going to sleep, stop what sets its clock, and measure again."
        )


@dataclass
class _Collected:
    reference_ms: list[tuple[float, float]] = field(default_factory=list)
    candidate_ms: list[tuple[float, float]] = field(default_factory=list)
    jumps: int = 0


def compare(
    reference: Work,
    candidates: Mapping[str, Work],
    stopwatch: Stopwatch,
    settings: ProtocolSettings | None = None,
    elapsed: Callable[[], float] = time.monotonic,
) -> dict[str, Compared]:
    """Time candidates against a reference.

    Args:
        reference: what to compare with, in its best form.
        candidates: by name. An error in any work ends the timing and reaches the caller.
        stopwatch: of the device that does the work.
        settings: the defaults if not given.
        elapsed: seconds, for `min_seconds`.

    Returns:
        One comparison per candidate.

    Raises:
        ValueError: there are no candidates.
        UnsteadyClockError: the clock jumped in so many blocks of a candidate that fewer than three are left.
    """
    settings = settings or ProtocolSettings()
    if not candidates:
        raise ValueError("A comparison needs a candidate; got none. Name one at least.")
    warmed = {name: warm_up(work, stopwatch, settings) for name, work in {"": reference, **candidates}.items()}
    collected = {name: _Collected() for name in candidates}
    order, generator, began = list(candidates), random.Random(settings.seed), elapsed()
    for number in count(1):
        generator.shuffle(order)
        for name in order:
            _add_block(collected[name], stopwatch, reference, candidates[name])
        if number >= settings.min_rounds and elapsed() - began >= settings.min_seconds:
            break
    return {name: _compared(each, warmed[""], warmed[name], settings) for name, each in collected.items()}


def warm_up(work: Work, stopwatch: Stopwatch, settings: ProtocolSettings) -> tuple[int, bool]:
    """Call a work until the medians of its last two windows agree.

    Returns:
        How many calls it took, and whether they agreed in the end.
    """
    before = None
    for number in range(1, settings.max_windows + 1):
        now = median(ms for _ in range(settings.window) for ms in stopwatch.block([work]).times_ms)
        if before is not None and abs(now - before) <= settings.settled * max(abs(before), abs(now)):
            return number * settings.window, True
        before = now
    return settings.max_windows * settings.window, False


def _add_block(collected: _Collected, stopwatch: Stopwatch, reference: Work, candidate: Work) -> None:
    block = stopwatch.block([reference, candidate, candidate, reference])
    if block.clock_jumped:
        collected.jumps += 1
        return
    first, second, third, fourth = block.times_ms
    collected.reference_ms.append((first, fourth))
    collected.candidate_ms.append((second, third))


def _compared(
    collected: _Collected, reference: tuple[int, bool], candidate: tuple[int, bool], settings: ProtocolSettings
) -> Compared:
    blocks = Blocks(tuple(collected.reference_ms), tuple(collected.candidate_ms))
    if len(blocks) < 3:
        raise UnsteadyClockError(len(blocks), collected.jumps)
    problems = []
    if collected.jumps:
        problems.append(f"the clock jumped in {collected.jumps} blocks, which were left out")
    if not (reference[1] and candidate[1]):
        problems.append(f"times did not settle within {settings.max_windows * settings.window} calls of warm-up")
    found = Compared(blocks, ratio_interval(blocks, settings.seed), candidate[0], ())
    spread = max(found.reference.relative_spread, found.candidate.relative_spread)
    if spread > settings.max_spread:
        problems.append(f"times spread by {spread:.0%} of their median, more than {settings.max_spread:.0%}")
    return Compared(found.blocks, found.ratio, found.warmup_calls, tuple(problems))
