"""What is recorded of the machine, with an NVML made by hand."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from profilers.environment import GpuState, read_environment, read_gpu

CPU = read_environment(torch.device("cpu"), "float32", "sdpa")
GPU = GpuState("GPU-1", "570.1", 1700, 2600, 300.0, 700.0, 45, (), ())


class FakeNvml:
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, reasons: int = 0, processes: tuple[int, ...] = (), fails: bool = False) -> None:
        self.reasons, self.processes, self.fails = reasons, processes, fails

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own names
        if self.fails:
            raise self.NVMLError("Driver Not Loaded")

    def __getattr__(self, name: str) -> object:
        answers = {
            "nvmlDeviceGetHandleByUUID": "handle",
            "nvmlDeviceGetCurrentClocksEventReasons": self.reasons,
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=pid) for pid in self.processes],
            "nvmlDeviceGetUUID": "GPU-1",
            "nvmlSystemGetDriverVersion": "570.1",
            "nvmlDeviceGetClockInfo": 1700,
            "nvmlDeviceGetPowerUsage": 300_000,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetTemperature": 45,
        }
        return lambda *_: answers[name]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1"))
    return torch.device("cuda")


def test_the_record_names_device_settings_and_versions() -> None:
    found = json.loads(json.dumps(CPU.as_dict()))
    assert (found["dtype"], found["attention"], found["device"]) == ("float32", "sdpa", "cpu")
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["energy"] == "not available"
    assert (found["gpu"], found["gpu_note"]) == (None, "no CUDA device is used")


def test_nvml_tells_clocks_throttling_and_strangers(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(0x4 | 0x40 | 0x1, (os.getpid(), 77)))  # type: ignore[arg-type]
    state, note = read_gpu(cuda)
    assert state == replace(GPU, memory_clock_mhz=1700, throttles=("power cap", "thermal slowdown in hardware"),
                            strangers=(77,))  # fmt: skip
    assert note == ""


def test_without_nvml_the_reason_is_recorded(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_gpu(cuda) == (None, "not available: pynvml is not installed")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(fails=True))  # type: ignore[arg-type]
    assert read_gpu(cuda) == (None, "not available: NVML says Driver Not Loaded")
