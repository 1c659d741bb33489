"""A machine without noise of its own: its clock stands still except while a call runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from profilers.stopwatch import Call, CpuStopwatch, Work


@dataclass
class Machine:
    """Calls of named works, and the seconds that they took.

    Attributes:
        now: seconds of the clock.
        calls: names of the works in the order of their calls.
        jumps: number of a call -> seconds by which the first clock, not the second, is set forth while it runs.
    """

    now: float = 0.0
    second: float = 0.0
    calls: list[str] = field(default_factory=list)
    jumps: dict[int, float] = field(default_factory=dict)

    def work(self, name: str, seconds: Callable[[int], float], prepare: float = 0.0) -> Work:
        """Return a work whose n-th call on this machine takes `seconds(n)`, after `prepare` seconds to enter it."""

        def call() -> None:
            number = len(self.calls)
            self.calls.append(name)
            took = seconds(number)
            self.now += took + self.jumps.get(number, 0.0)
            self.second += took

        @contextmanager
        def entered() -> Iterator[Call]:
            self.now += prepare
            self.second += prepare
            yield call

        return entered

    def stopwatch(self) -> CpuStopwatch:
        """Return a stopwatch of this machine's clocks."""
        return CpuStopwatch(lambda: self.now, lambda: self.second)

    def elapsed(self) -> float:
        """Return the seconds of the steady clock."""
        return self.second
