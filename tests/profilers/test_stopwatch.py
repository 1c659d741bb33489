"""Times on a fake CUDA device, the devices that can be timed, and clocks that disagree."""

from __future__ import annotations

import math
import time
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


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has this clock")
def test_a_machine_that_sleeps_in_a_call_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    awake, slept = time.clock_gettime, [0.0]

    def clock_gettime(clock: int) -> float:
        return awake(clock) + slept[0] * (clock == time.CLOCK_BOOTTIME)

    def call() -> None:
        slept[0] += 3600.0
        time.sleep(0.001)

    monkeypatch.setattr(time, "clock_gettime", clock_gettime)
    assert stopwatch_of("cpu").block([plain(call)]).clock_jumped


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has this clock")
def test_setting_the_time_of_day_is_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    today = iter(range(0, 10**6, 3600))
    monkeypatch.setattr(time, "time", lambda: float(next(today)))
    assert not stopwatch_of("cpu").block([plain(lambda: time.sleep(0.001))] * 4).clock_jumped


def test_without_that_clock_the_time_of_day_is_the_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    today = iter(range(0, 10**6, 3600))
    monkeypatch.setattr(time, "time", lambda: float(next(today)))
    assert stopwatch_of("cpu").block([plain(lambda: time.sleep(0.001))]).clock_jumped
