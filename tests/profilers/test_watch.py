"""What of the machine makes times unreliable, and the watch over it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from profilers import watch
from profilers.environment import GpuState
from profilers.watch import CpuUse, Watch, environment_problems, read_cpu_use, watched

GPU = GpuState("GPU-1", "570.1", 1700, 2600, 300.0, 700.0, 45, (), ())


def test_a_quiet_machine_has_no_problems() -> None:
    assert environment_problems(GPU, GPU, 0.1) == environment_problems(None, None, None) == ()


@pytest.mark.parametrize(
    "before, after, problem",
    [
        (GPU, replace(GPU, throttles=("power cap",)), "the GPU was held down by power cap"),
        (replace(GPU, strangers=(77,)), GPU, "other processes computed on the GPU: 77"),
    ],
)
def test_throttling_and_strangers_are_problems(before: GpuState, after: GpuState, problem: str) -> None:
    assert environment_problems(before, after, 0.0) == (problem,)


def test_a_cpu_that_others_use_is_a_problem() -> None:
    before = CpuUse(busy_s=100.0, own_s=10.0, at_s=0.0)
    alone, crowded = CpuUse(104.0, 14.0, 4.0), CpuUse(107.0, 14.0, 4.0)
    assert before.foreign_cores(alone) == 0.0
    assert before.foreign_cores(crowded) == 0.75
    assert environment_problems(None, None, before.foreign_cores(alone)) == ()
    assert environment_problems(None, None, before.foreign_cores(crowded)) == ("other processes kept 0.8 cores busy",)


@pytest.mark.parametrize(
    "after, crowded",
    [
        (CpuUse(15.5, 4.0, 4.0), True),  # others use 2.9 of 4 cores, and hardly any is left
        (CpuUse(10.0, 9.5, 2.5), False),  # this process uses all of them
        (CpuUse(6.0, 2.0, 4.0), False),  # others use one, and there is room
        (CpuUse(1.6, 0.4, 0.4), False),  # too short to tell
    ],
)
def test_a_machine_is_crowded_when_others_leave_hardly_a_core(
    after: CpuUse, crowded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(watch, "read_cpu_use", lambda: after)
    assert Watch(CpuUse(0.0, 0.0, 0.0)).crowded() is crowded
    assert Watch(None).crowded() is False


def test_own_work_is_not_foreign() -> None:
    before = read_cpu_use()
    if before is None:
        pytest.skip("the system does not tell the use of the CPU")
    began = time.process_time()
    while time.process_time() - began < 0.25:
        sum(range(10_000))
    after = read_cpu_use()
    assert after is not None
    assert after.own_s - before.own_s >= 0.2
    assert after.busy_s - before.busy_s >= 0.1


def test_a_system_that_does_not_tell_is_not_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watch, "_STAT", tmp_path / "stat")
    assert read_cpu_use() is None


def test_a_watch_compares_the_machine_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    states, uses = iter([GPU, replace(GPU, throttles=("power cap",))]), iter([CpuUse(0, 0, 0), CpuUse(9, 1, 4)])
    monkeypatch.setattr(watch, "read_gpu", lambda _: (next(states), ""))
    monkeypatch.setattr(watch, "read_cpu_use", lambda: next(uses))
    with watched(torch.device("cuda")) as found:
        assert found.problems == ()
    assert found.problems == ("the GPU was held down by power cap", "other processes kept 2.0 cores busy")
