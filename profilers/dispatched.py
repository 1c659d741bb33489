"""Multiply-adds of one call as torch's own FlopCounterMode counts them while the call runs.

It sees what runs, dead modules included, at the level below the one that is traced in `profilers.macs`: an independent
second count. Attention is computed by its plain formula meanwhile where the device is the CPU, because torch counts
its fused CPU kernel as zero (pytorch issue 195460); on the meta device the fused operator is counted.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def dispatched_macs(module: nn.Module, /, *args: object, **kwargs: object) -> Mapping[str, int]:
    """Count the multiply-adds of `module(*args, **kwargs)` per submodule, by its name; "" is the module itself.

    The call is made once, without gradients. Half of the flops that torch reports: it counts a multiply-add as two.
    """
    counter = FlopCounterMode(display=False)
    with _untrained(module), counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module(*args, **kwargs)
    root = type(module).__name__
    counts = {name: sum(parts.values()) // 2 for name, parts in counter.get_flop_counts().items()}
    inner = {name.partition(".")[2]: macs for name, macs in counts.items() if name.startswith(f"{root}.")}
    return {**inner, "": int(counts["Global"])}


def count_macs_outside(module: nn.Module, inner: Iterable[nn.Module], /, **kwargs: object) -> int:
    """Count the multiply-adds of `module(**kwargs)` that are spent outside the submodules `inner`.

    For models that cannot be traced as a whole, because sizes in them depend on values.

    Args:
        module: the module to call.
        inner: submodules that do not contain each other; a call of one of them counts as zero.
        **kwargs: keyword arguments of the call.
    """
    names = {submodule: name for name, submodule in module.named_modules()}
    counts = dispatched_macs(module, **kwargs)
    return counts[""] - sum(counts.get(names[submodule], 0) for submodule in inner)


@contextmanager
def _untrained(module: nn.Module) -> Iterator[None]:
    # torch's module tracker hooks gradients of inputs that want one, also where none are computed.
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
