"""Pairs of times: the order of the calls, the statistics, drift, and the CUDA path on a fake device."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from profilers.timing import PairTiming, time_pair

TICKS_PER_SECOND = 1024  # a power of two, so that sums and differences of fake times are exact
ticks = st.integers(min_value=1, max_value=2**20)


def ms(count: int) -> float:
    return 1000 * count / TICKS_PER_SECOND


@dataclass
class FakeMachine:
    """A clock that stands still except while a call runs, and the calls it saw."""

    now: float = 0.0
    calls: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def work(self, name: str, duration: Callable[[int], float]) -> Callable[[], None]:
        """A call named `name` that takes `duration(n)` seconds when it is the n-th call of the machine."""

        def call() -> None:
            self.now += duration(len(self.calls))
            self.calls.append(name)

        return call


@given(repeats=st.integers(1, 5), warmup=st.integers(0, 3))
def test_calls_alternate_a_b_b_a(repeats: int, warmup: int) -> None:
    machine = FakeMachine()
    a, b = machine.work("A", lambda _: 1.0), machine.work("B", lambda _: 2.0)
    timing = time_pair(a, b, device="cpu", repeats=repeats, warmup=warmup, clock=machine.clock)
    assert "".join(machine.calls) == "ABBA" * (warmup + repeats)
    assert timing.reference_ms == (1000.0,) * (2 * repeats)
    assert timing.candidate_ms == (2000.0,) * (2 * repeats)


def test_clock_of_the_cpu_is_perf_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine()
    monkeypatch.setattr(time, "perf_counter", machine.clock)
    timing = time_pair(machine.work("A", lambda _: 1.0), machine.work("B", lambda _: 3.0), device="cpu", repeats=1)
    assert (timing.reference_ms, timing.candidate_ms) == ((1000.0, 1000.0), (3000.0, 3000.0))


@given(st.lists(st.tuples(ticks, ticks, ticks, ticks), min_size=1, max_size=6))
def test_values_and_statistics_are_the_closed_form(rounds: list[tuple[int, int, int, int]]) -> None:
    machine = FakeMachine()
    durations = [count / TICKS_PER_SECOND for one in rounds for count in one]
    call = machine.work("call", durations.__getitem__)
    timing = time_pair(call, call, device="cpu", repeats=len(rounds), warmup=0, clock=machine.clock)

    pairs = [pair for a, b, c, d in rounds for pair in ((a, b), (d, c))]
    assert timing.reference_ms == tuple(ms(reference) for reference, _ in pairs)
    assert timing.candidate_ms == tuple(ms(candidate) for _, candidate in pairs)
    assert timing.reference_median_ms == median(ms(reference) for reference, _ in pairs)
    assert timing.candidate_median_ms == median(ms(candidate) for _, candidate in pairs)
    assert timing.ratio == median(ms(candidate) / ms(reference) for reference, candidate in pairs)


def test_ratio_is_of_pairs_not_of_medians() -> None:
    timing = PairTiming(reference_ms=(1.0, 10.0, 100.0), candidate_ms=(2.0, 5.0, 50.0))
    assert timing.ratio == 0.5
    assert timing.candidate_median_ms / timing.reference_median_ms == 0.5
    assert PairTiming(reference_ms=(1.0, 2.0, 9.0), candidate_ms=(3.0, 4.0, 3.0)).ratio == 2.0


@given(st.lists(ticks, min_size=2, max_size=9))
def test_equal_times_have_ratio_one_and_no_spread(counts: list[int]) -> None:
    times_ms = tuple(ms(count) for count in counts)
    timing = PairTiming(reference_ms=times_ms, candidate_ms=times_ms)
    assert (timing.ratio, timing.ratio_spread) == (1.0, 0.0)


def test_spread_is_the_interquartile_range() -> None:
    timing = PairTiming(reference_ms=(1.0,) * 5, candidate_ms=(5.0, 1.0, 4.0, 2.0, 3.0))
    assert timing.ratio_spread == 2.0


@given(ratio=st.floats(0.1, 10), slope=st.floats(0.001, 0.05), repeats=st.integers(1, 10))
def test_linear_drift_cancels_better_than_in_a_a_b_b(ratio: float, slope: float, repeats: int) -> None:
    def drifting(base: float) -> Callable[[int], float]:
        return lambda nth_call: base * (1 + slope * nth_call)

    machine = FakeMachine()
    a, b = machine.work("A", drifting(1.0)), machine.work("B", drifting(ratio))
    alternating = time_pair(a, b, device="cpu", repeats=repeats, warmup=0, clock=machine.clock)

    places = [(start + offset, start + offset + 2) for start in range(0, 4 * repeats, 4) for offset in (0, 1)]
    blocked = PairTiming(
        reference_ms=tuple(drifting(1.0)(place) for place, _ in places),
        candidate_ms=tuple(drifting(ratio)(place) for _, place in places),
    )
    assert abs(alternating.ratio / ratio - 1) < abs(blocked.ratio / ratio - 1) / 2


def test_as_dict_is_json() -> None:
    timing = PairTiming(reference_ms=(1.0, 2.0), candidate_ms=(2.0, 6.0))
    assert json.loads(json.dumps(timing.as_dict())) == {
        "reference_ms": [1.0, 2.0],
        "candidate_ms": [2.0, 6.0],
        "reference_median_ms": 1.5,
        "candidate_median_ms": 4.0,
        "ratio": 2.5,
        "ratio_spread": 0.5,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1; got 0"),
        ({"warmup": -1}, "warmup must be at least 0; got -1"),
        ({"device": "meta"}, "device must be cpu or cuda; got meta"),
        ({"device": "cuda:0", "clock": lambda: 0.0}, "A clock only times the cpu; got one for cuda:0"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    machine = FakeMachine()
    call = machine.work("call", lambda _: 1.0)
    with pytest.raises(ValueError, match=message):
        time_pair(call, call, **{"device": "cpu", **changes})  # type: ignore[arg-type]
    assert machine.calls == []


@pytest.mark.parametrize(
    ("reference_ms", "candidate_ms"),
    [((), ()), ((1.0,), (1.0,)), ((1.0, 2.0), (1.0,)), ((1.0, 0.0), (1.0, 1.0)), ((1.0, 1.0), (1.0, math.nan))],
)
def test_times_that_prove_nothing_are_refused(reference_ms: tuple[float, ...], candidate_ms: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="got"):
        PairTiming(reference_ms, candidate_ms)


def test_an_error_of_a_callable_reaches_the_caller() -> None:
    machine = FakeMachine()

    def broken() -> None:
        raise KeyError("from the candidate")

    with pytest.raises(KeyError, match="from the candidate"):
        time_pair(machine.work("A", lambda _: 1.0), broken, device="cpu", clock=machine.clock)
    assert machine.calls == ["A"]


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

    def Event(self, enable_timing: bool) -> "FakeEvent":  # noqa: N802
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

    def elapsed_time(self, end: "FakeEvent") -> float:
        return end.time_ms - self.time_ms


def test_cuda_times_come_from_events_with_one_wait_per_round(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    timing = time_pair(cuda.launch("A", 3.0), cuda.launch("B", 5.0), device="cuda:1", repeats=2, warmup=1)
    assert cuda.log == ["A", "B", "B", "A", "wait for cuda:1"] * 3
    assert (timing.reference_ms, timing.candidate_ms) == ((3.0,) * 4, (5.0,) * 4)
