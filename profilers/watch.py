"""What makes times unreliable while they are taken: a GPU that is held down, and others who use the machine."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from profilers.environment import GpuState, read_gpu

MAX_FOREIGN_CORES: Final = 0.25
"""Cores that others may keep busy on average before times are called unreliable."""
# Others make this process wait where hardly any core is left. Ticks are coarse: a shorter look would tell nothing.
_CROWDED_SHARE, _LEAST_SECONDS = 0.9, 0.5
_STAT = Path("/proc/stat")


@dataclass
class Watch:
    """What a watch over the machine has found.

    Attributes:
        began: the use of the CPU when the watch began; None where that is not known.
        problems: why times should not be relied upon; known once the watch is over.
    """

    began: "CpuUse | None" = None
    problems: tuple[str, ...] = ()

    def crowded(self) -> bool:
        """Whether others have kept cores busy until now and left hardly any, so that times will not settle."""
        now = None if self.began is None else read_cpu_use()
        if self.began is None or now is None or now.at_s - self.began.at_s < _LEAST_SECONDS:
            return False
        full = now.busy_s - self.began.busy_s >= _CROWDED_SHARE * (os.cpu_count() or 1) * (now.at_s - self.began.at_s)
        return full and self.began.foreign_cores(now) > MAX_FOREIGN_CORES


@contextmanager
def watched(device: torch.device) -> Iterator[Watch]:
    """Watch the machine, and `device` where that is a GPU, while the block takes times."""
    gpu, watch = read_gpu(device)[0], Watch(read_cpu_use())
    yield watch
    after = read_cpu_use()
    foreign = None if watch.began is None or after is None else watch.began.foreign_cores(after)
    watch.problems = environment_problems(gpu, read_gpu(device)[0], foreign)


@dataclass(frozen=True)
class CpuUse:
    """Seconds that all cores and this process have been busy until a moment, since some moment in the past.

    Attributes:
        busy_s: of all cores together.
        own_s: of this process and its threads.
        at_s: the moment, by a steady clock.
    """

    busy_s: float
    own_s: float
    at_s: float

    def foreign_cores(self, later: "CpuUse") -> float:
        """Return how many cores others kept busy on average until `later`."""
        others = (later.busy_s - self.busy_s) - (later.own_s - self.own_s)
        return max(0.0, others) / max(later.at_s - self.at_s, 1e-9)


def read_cpu_use() -> CpuUse | None:
    """Return the use of the CPU until now, or None where the system does not tell."""
    try:
        fields = _STAT.read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    # proc(5): user, nice, system, idle, iowait, irq, softirq; the rest is time of guests, which user holds already.
    user, nice, system, _, _, irq, softirq = (int(value) for value in fields[:7])
    own = os.times()
    busy_s = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return CpuUse(busy_s, own.user + own.system, time.monotonic())


def environment_problems(
    before: GpuState | None, after: GpuState | None, foreign_cores: float | None
) -> tuple[str, ...]:
    """Say what about the machine makes times unreliable.

    Args:
        before, after: states of the GPU around the measurement; None without one.
        foreign_cores: cores that others kept busy meanwhile; None where that is not known.
    """
    states: Sequence[GpuState] = [state for state in (before, after) if state is not None]
    problems = [f"the GPU was held down by {name}" for name in sorted({n for s in states for n in s.throttles})]
    strangers = sorted({pid for state in states for pid in state.strangers})
    if strangers:
        problems.append(f"other processes computed on the GPU: {', '.join(map(str, strangers))}")
    if foreign_cores is not None and foreign_cores > MAX_FOREIGN_CORES:
        problems.append(f"other processes kept {foreign_cores:.1f} cores busy")
    return tuple(problems)
