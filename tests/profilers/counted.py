"""What the tests of counts count, and torch's own count of it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Function(nn.Module):
    """A function as a module; submodules are those given by name."""

    def __init__(self, function: Callable[..., object], **submodules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, submodule in submodules.items():
            self.add_module(name, submodule)

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.function(*args, **kwargs)


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def flops_by_torch(module: nn.Module, *args: object, **kwargs: object) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*args, **kwargs)
    return int(counter.get_total_flops())
