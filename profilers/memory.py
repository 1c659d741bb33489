"""Peak memory of a block of work, and the bytes of a key-value cache by formula and by inspection."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from profilers.shapes import LayerShape, ModelShape

_CLEAR_PEAK = "5"  # proc(5), clear_refs: reset the peak of the resident set
_STATUS, _CLEAR, _MEMINFO = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")


@dataclass
class PeakMemory:
    """Peaks since the block was entered, filled when it is left.

    Attributes:
        allocated_bytes: of tensors on a CUDA device.
        reserved_bytes: what the allocator took from the device for them.
        resident_bytes: of the process in main memory, on the CPU.
        note: why a number is None.
    """

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    resident_bytes: int | None = None
    note: str = ""


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the peaks of the block; they are reset when it is entered."""
    found = PeakMemory()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        # What the allocator kept of earlier work would count as reserved.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        torch.cuda.synchronize(device)
        found.allocated_bytes = torch.cuda.max_memory_allocated(device)
        found.reserved_bytes = torch.cuda.max_memory_reserved(device)
        return
    reset = _reset_resident_peak()
    yield found
    if reset:
        found.resident_bytes = _resident_peak_bytes()
    else:
        found.note = "the system does not let the peak of the resident set be reset"


def _reset_resident_peak() -> bool:
    try:
        _CLEAR.write_text(_CLEAR_PEAK)
    except OSError:
        return False
    return True


def _resident_peak_bytes() -> int:
    lines = _STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def kv_cache_bytes(
    shape: ModelShape, tokens_per_layer: Sequence[int], *, generated: int, batch: int, value_bytes: int
) -> int:
    """Return the bytes of a key-value cache by formula: tokens x numbers per token x bytes of a number.

    Args:
        shape: the model.
        tokens_per_layer: tokens of the prompt that each layer holds, per row.
        generated: further tokens that each layer holds, per row.
        batch: rows.
        value_bytes: bytes of one number.
    """
    layers = zip(shape.layers, tokens_per_layer, strict=True)
    return sum(_held(layer, tokens + generated) for layer, tokens in layers) * batch * value_bytes


def _held(layer: LayerShape, tokens: int) -> int:
    window = layer.attention.window
    # A sliding cache keeps what the next query can see beside itself.
    return layer.attention.cache_width * (tokens if window is None else min(tokens, window - 1))


def cache_bytes(cache: Any) -> int:
    """Return the bytes that a transformers cache holds, by looking at its tensors."""
    tensors = (value for layer in cache.layers for value in vars(layer).values() if isinstance(value, torch.Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.is_floating_point())


def available_bytes(device: torch.device) -> int:
    """Return how many bytes can still be taken on a device."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    lines = _MEMINFO.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on the CPU torch has no class for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )
