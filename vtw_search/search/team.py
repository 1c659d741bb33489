"""One worker among others: which pieces of a work are its own, and when its turn has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from vtw_search.search.leases import LeaseHolder

_Unit = TypeVar("_Unit")


@dataclass(frozen=True)
class Team:
    """The workers of a search, seen from one of them.

    Attributes:
        leases: of this worker.
        pause_s: between looks at what the others do.
        sleep: waits for some seconds.
    """

    leases: LeaseHolder
    pause_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def each(self, units: Sequence[_Unit], name: Callable[[_Unit], str]) -> Iterator[_Unit]:
        """Yield every unit of a work once, when no other worker is at it; who gets there first does it.

        The unit is this worker's, under a lease, until the next one is asked for. A later visitor finds the results,
        and sees to it that nothing is missing: whoever was at it may have died.

        Args:
            units: the whole work.
            name: of a unit, the same for all workers.
        """
        left = list(units)
        while left:
            took = False
            for unit in list(left):
                with self.leases.held(name(unit)) as mine:
                    if mine:
                        took = True
                        left.remove(unit)
                        yield unit
            if left and not took:
                self.sleep(self.pause_s)

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait for a lease, and hold it for the block."""
        while True:
            with self.leases.held(name) as mine:
                if mine:
                    yield
                    return
            self.sleep(self.pause_s)
