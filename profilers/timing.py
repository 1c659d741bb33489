"""How times are compared: warmed up until they settle, in turn in one process, in random rounds, long enough.

A round calls every candidate once, in an order drawn anew, each in a block A B B A with the reference (A). What changes
slowly, such as clock rates, temperature or other load, falls on both sides of a block alike.

On a machine that others keep busy, times may never settle. What has not settled after a while, or while others keep all
cores busy, is not waited for any longer: a few rounds are taken, and the times are called unreliable.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from profilers.protocol import LEAST_ROUNDS, Patience, ProtocolSettings, WarmUp, warm_up
from profilers.statistics import Blocks, Interval, Summary, ratio_interval
from profilers.stopwatch import Stopwatch, Work


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
    warmed: tuple[WarmUp, WarmUp]
    reference_ms: list[tuple[float, float]] = field(default_factory=list)
    candidate_ms: list[tuple[float, float]] = field(default_factory=list)
    jumps: int = 0

    def blocks(self) -> Blocks:
        return Blocks(tuple(self.reference_ms), tuple(self.candidate_ms))

    def spread(self) -> float:
        return max(side.relative_spread for side in self.blocks().summaries())

    def is_steady(self, settings: ProtocolSettings) -> bool:
        return all(each.settled for each in self.warmed) and self.spread() <= settings.max_spread


def compare(
    reference: Work,
    candidates: Mapping[str, Work],
    stopwatch: Stopwatch,
    settings: ProtocolSettings | None = None,
    elapsed: Callable[[], float] = time.monotonic,
    crowded: Callable[[], bool] = lambda: False,
) -> dict[str, Compared]:
    """Time candidates against a reference.

    Args:
        reference: what to compare with, in its best form.
        candidates: by name. An error in any work ends the timing and reaches the caller.
        stopwatch: of the device that does the work.
        settings: the defaults if not given.
        elapsed: seconds, for `min_seconds` and `max_seconds`.
        crowded: whether others keep the machine so busy that times will not settle.

    Returns:
        One comparison per candidate.

    Raises:
        ValueError: there are no candidates.
        UnsteadyClockError: the clock jumped in so many blocks of a candidate that fewer than three are left.
    """
    settings = settings or ProtocolSettings()
    if not candidates:
        raise ValueError("A comparison needs a candidate; got none. Name one at least.")
    patience = Patience(settings.max_seconds * len(candidates), elapsed, crowded, elapsed())
    first, *others = (warm_up(work, stopwatch, settings, patience.ended) for work in (reference, *candidates.values()))
    collected = {name: _Collected((first, each)) for name, each in zip(candidates, others, strict=True)}
    order, generator, began = list(candidates), random.Random(settings.seed), elapsed()
    ended = None
    for number in count(1):
        generator.shuffle(order)
        for name in order:
            _add_block(collected[name], stopwatch, reference, candidates[name])
        if number >= settings.min_rounds and elapsed() - began >= settings.min_seconds:
            break
        if _can_end(collected.values(), settings) and (ended := patience.ended()):
            break
    return {name: _compared(each, settings, ended) for name, each in collected.items()}


def _add_block(collected: _Collected, stopwatch: Stopwatch, reference: Work, candidate: Work) -> None:
    block = stopwatch.block([reference, candidate, candidate, reference])
    if block.clock_jumped:
        collected.jumps += 1
        return
    first, second, third, fourth = block.times_ms
    collected.reference_ms.append((first, fourth))
    collected.candidate_ms.append((second, third))


def _can_end(collected: Collection[_Collected], settings: ProtocolSettings) -> bool:
    """Return whether all have something to show, and the times of one are unreliable as they are."""
    if any(len(each.reference_ms) < LEAST_ROUNDS for each in collected):
        return False
    return not all(each.is_steady(settings) for each in collected)


def _compared(collected: _Collected, settings: ProtocolSettings, ended: str | None) -> Compared:
    blocks = collected.blocks()
    if len(blocks) < LEAST_ROUNDS:
        raise UnsteadyClockError(len(blocks), collected.jumps)
    problems = tuple(_problems(collected, settings, ended))
    return Compared(blocks, ratio_interval(blocks, settings.seed), collected.warmed[1].calls, problems)


def _problems(collected: _Collected, settings: ProtocolSettings, ended: str | None) -> Iterator[str]:
    if collected.jumps:
        yield f"the clock jumped in {collected.jumps} blocks, which were left out"
    unsettled = [each for each in collected.warmed if not each.settled]
    if unsettled:
        reasons = [f": {each.ended}" for each in unsettled if each.ended]
        calls = max(each.calls for each in unsettled)
        yield f"times did not settle within {calls} calls of warm-up{reasons[0] if reasons else ''}"
    spread = collected.spread()
    if spread > settings.max_spread:
        yield f"times spread by {spread:.0%} of their median, more than {settings.max_spread:.0%}"
    rounds = len(collected.reference_ms)
    if ended and rounds < settings.min_rounds:
        yield f"{rounds} of {settings.min_rounds} rounds were taken: {ended}"
