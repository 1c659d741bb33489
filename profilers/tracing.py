"""Calls that torch cannot trace as they are written, and how they are made instead."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class TraceableCalls(TorchFunctionMode):
    """Scatters of a constant truth value become scatters of a tensor: torch 2.13 has no traced operator for the former.

    Neither form multiplies anything, so that no count changes.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make the call, rewritten where it has to be."""
        if func in (torch.scatter, Tensor.scatter) and isinstance(args[-1], bool):
            source, dimension, index, value = args
            filled = torch.ones_like if value else torch.zeros_like
            return func(source, dimension, index, filled(index, dtype=source.dtype))
        return func(*args, **(kwargs or {}))
