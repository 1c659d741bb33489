"""The most bytes that a call holds at once, told by torch's own allocator through its profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_above_weights(hidden: int, visual: int, what: str) -> int:
    """Return the most bytes that `what`, `prefill` or `one pass` over all layers, holds beyond what was there."""
    from experiments.sweep_cost.run import LAYERS, Policy, Sweep

    sweep = Sweep(hidden, visual)
    policies = [Policy.withdraw(layer) for layer in range(1, LAYERS)]
    call: Callable[[], Any] = sweep.plain if what == "prefill" else lambda: sweep.one_pass(policies)
    call()
    return peak_of(call)


def peak_of(call: Callable[[], Any]) -> int:
    """Return the most bytes that `call` had allocated at once on the CPU, above what was allocated before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    del result
    level = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            level += event.nbytes()
            peak = max(peak, level)
    return peak
