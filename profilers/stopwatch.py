"""How long calls take: CUDA events on a GPU, a clock on the CPU; a block of calls is waited for once, at its end.

What is timed is a `Work`: entering it does whatever must not be timed (placing hooks, filling a cache) and gives the
call that is.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

Call = Callable[[], object]
Work = Callable[[], AbstractContextManager[Call]]

# Two clocks that run evenly differ by less over a block of calls.
_JUMP_SECONDS, _JUMP_SHARE = 0.005, 0.2


@dataclass(frozen=True)
class Block:
    """Times of consecutive calls.

    Attributes:
        times_ms: one per call, in order.
        clock_jumped: whether the clock went backwards, stood still or disagreed with a second one, so that the times
            mean nothing.
    """

    times_ms: tuple[float, ...]
    clock_jumped: bool = False


class Stopwatch(Protocol):
    """Times blocks of works."""

    def block(self, works: Sequence[Work]) -> Block:
        """Call each work once, in order."""


def plain(call: Call) -> Work:
    """Return a work that has nothing to prepare."""

    @contextmanager
    def work() -> Iterator[Call]:
        yield call

    return work


class CpuStopwatch:
    """Reads a clock around each call.

    Args:
        clock: seconds; `time.perf_counter` by default.
        second_clock: seconds by another clock, to notice when the first one jumps or stands still; the first one again
            where only that is given.
    """

    def __init__(
        self, clock: Callable[[], float] | None = None, second_clock: Callable[[], float] | None = None
    ) -> None:
        self._clock = clock or time.perf_counter
        self._second_clock = second_clock or clock or _unlike_perf_counter()

    def block(self, works: Sequence[Work]) -> Block:
        """Call each work once, in order."""
        times, jumped = [], False
        for work in works:
            with work() as call:
                began, second_began = self._clock(), self._second_clock()
                call()
                seconds, second = self._clock() - began, self._second_clock() - second_began
            # It may hold a cache, beside which the next work would make another one.
            del call
            jumped |= seconds <= 0 or abs(seconds - second) > max(_JUMP_SECONDS, _JUMP_SHARE * abs(second))
            times.append(1000 * seconds)
        return Block(tuple(times), jumped)


class CudaStopwatch:
    """Records an event before and after each call on the device's current stream and waits once per block.

    What entering a work does is queued between the events of its neighbours, never inside them. A work that waits for
    the device of its own accord stops no other one's time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def block(self, works: Sequence[Work]) -> Block:
        """Call each work once, in order."""
        stream, events = torch.cuda.current_stream(self._device), []
        for work in works:
            with work() as call:
                start, end = _event(), _event()
                start.record(stream)
                call()
                end.record(stream)
            del call
            events.append((start, end))
        torch.cuda.synchronize(self._device)
        times = tuple(start.elapsed_time(end) for start, end in events)
        return Block(times, any(ms <= 0 for ms in times))


def stopwatch_of(device: torch.device | str) -> Stopwatch:
    """Return the stopwatch for the CPU or a CUDA device; ValueError for any other."""
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda; got {device}. Move the work to one of them.")
    return CudaStopwatch(device) if device.type == "cuda" else CpuStopwatch()


def _unlike_perf_counter() -> Callable[[], float]:
    """Return a clock that can disagree with `time.perf_counter`, which on Linux is the same as `time.monotonic`.

    CLOCK_BOOTTIME goes on while the machine sleeps, where perf_counter stands still, and nobody can set it, so that it
    raises no false alarm (clock_gettime(2)). Systems without it have the time of day, which jumps when it is set.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.time


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
