"""What a reader has to know to judge a time: the machine, its settings and the state of its GPU."""

import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

NOT_AVAILABLE: Final = "not available"
_PACKAGES = ("torch", "transformers", "fvcore", "numpy", "scipy")
# Names of NVML's clock event reasons that slow a GPU down; idle and clocks set by an application are none of them.
_THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal slowdown in software",
    0x40: "thermal slowdown in hardware",
    0x80: "power brake",
}


@dataclass(frozen=True)
class GpuState:
    """What NVML says of a GPU at one moment.

    Attributes:
        uuid, driver: identity of the card and version of its driver.
        sm_clock_mhz, memory_clock_mhz, power_watts, power_limit_watts, temperature_c: as read.
        throttles: reasons for which its clocks are held down.
        strangers: process ids of others that compute on it.
    """

    uuid: str
    driver: str
    sm_clock_mhz: int
    memory_clock_mhz: int
    power_watts: float
    power_limit_watts: float
    temperature_c: int
    throttles: tuple[str, ...]
    strangers: tuple[int, ...]


@dataclass(frozen=True)
class Environment:
    """The machine and the settings of a measurement.

    Attributes:
        device, cpu: names.
        dtype, attention: how the model computes.
        cpu_count, threads: cores, and threads that torch uses.
        load_average: runnable processes of the last minute; None where the system does not tell.
        versions: of Python, CUDA and packages.
        settings: of torch, that change how long a product of matrices takes.
        cache_state: what the repeats leave in the caches of the processor: warm, as in serving.
        gpu: before the measurement; None with the reason in `gpu_note`.
        gpu_note: why there is no GPU state.
        energy: not measured; a window of some seconds would be needed for it.
    """

    device: str
    cpu: str
    dtype: str
    attention: str
    cpu_count: int
    threads: int
    load_average: float | None
    versions: dict[str, str]
    settings: dict[str, str]
    cache_state: str
    gpu: GpuState | None
    gpu_note: str
    energy: str = NOT_AVAILABLE

    def as_dict(self) -> dict[str, Any]:
        """The record, ready for JSON."""
        return asdict(self)


def read_environment(device: torch.device, dtype: str, attention: str) -> Environment:
    """Record the environment of a measurement on `device`."""
    gpu, note = read_gpu(device)
    return Environment(
        device=_gpu_name(device) or "cpu",
        cpu=_cpu_name(),
        dtype=dtype,
        attention=attention,
        cpu_count=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        versions={"python": platform.python_version(), "cuda": torch.version.cuda or NOT_AVAILABLE, **_versions()},
        settings={
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "deterministic": str(torch.are_deterministic_algorithms_enabled()),
            "cuda_allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "default"),
        },
        cache_state="warm",
        gpu=gpu,
        gpu_note=note,
    )


def read_machine(device: torch.device) -> dict[str, Any]:
    """Return what decides how long the same work takes on `device`, whatever the state of the machine.

    Names and numbers alone, ready for JSON: the processor, the GPU (None without one), and the threads that torch uses.
    """
    return {"cpu": _cpu_name(), "gpu": _gpu_name(device), "threads": torch.get_num_threads()}


def read_gpu(device: torch.device) -> tuple[GpuState | None, str]:
    """Return the state of a CUDA device and "", or None and why NVML does not tell."""
    if device.type != "cuda":
        return None, "no CUDA device is used"
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return None, f"{NOT_AVAILABLE}: pynvml is not installed"
    try:
        nvml.nvmlInit()
        return _state(nvml, nvml.nvmlDeviceGetHandleByUUID(_uuid(device))), ""
    except nvml.NVMLError as error:
        return None, f"{NOT_AVAILABLE}: NVML says {error}"


def _uuid(device: torch.device) -> str:
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _state(nvml: Any, handle: Any) -> GpuState:
    reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return GpuState(
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        sm_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        power_watts=nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        power_limit_watts=nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
        temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        throttles=tuple(name for bit, name in _THROTTLES.items() if reasons & bit),
        strangers=tuple(each.pid for each in processes if each.pid != os.getpid()),
    )


def _gpu_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


@cache
def _cpu_name() -> str:
    otherwise = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return otherwise
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), otherwise)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = NOT_AVAILABLE
    return found
