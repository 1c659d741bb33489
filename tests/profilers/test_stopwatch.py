"""Times on a fake CUDA device, and the devices that can be timed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from profilers.stopwatch import plain, stopwatch_of


@dataclass
class FakeCuda:
    """Stands in for `torch.cuda`: events take their time from a queue that runs only when the host waits."""

    log: list[str] = field(default_factory=list)
    queue: list[Callable[[], None]] = field(default_factory=list)
    now_ms: float = 0.0

    def current_stream(self, device: torch.device) -> str:
        return f"stream of {device}"

    def synchronize(self, device: torch.device) -> None:
        self.log.append(f"wait for {device}")
        while self.queue:
            self.queue.pop(0)()

    def Event(self, enable_timing: bool) -> FakeEvent:  # noqa: N802
        assert enable_timing
        return FakeEvent(self)

    def launch(self, name: str, duration_ms: float) -> Callable[[], None]:
        def advance() -> None:
            self.now_ms += duration_ms

        def call() -> None:
            self.log.append(name)
            self.queue.append(advance)

        return call


@dataclass
class FakeEvent:
    cuda: FakeCuda
    time_ms: float = math.nan

    def record(self, stream: str) -> None:
        assert stream == "stream of cuda:1"
        self.cuda.queue.append(lambda: setattr(self, "time_ms", self.cuda.now_ms))

    def elapsed_time(self, end: FakeEvent) -> float:
        return end.time_ms - self.time_ms


def test_cuda_times_come_from_events_with_one_wait_per_block(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch, cuda = stopwatch_of("cuda:1"), FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    a, b = plain(cuda.launch("A", 3.0)), plain(cuda.launch("B", 5.0))
    assert [stopwatch.block([a, b, b, a]).times_ms for _ in range(2)] == [(3.0, 5.0, 5.0, 3.0)] * 2
    assert cuda.log == ["A", "B", "B", "A", "wait for cuda:1"] * 2


def test_other_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="device must be cpu or cuda; got meta"):
        stopwatch_of("meta")
