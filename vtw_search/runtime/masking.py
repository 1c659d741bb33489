"""The oracle of removal, and a look at what decoder layers receive. Nothing here is shared with `removal`.

Masking computes what a policy must compute, at full length: from layer K on, no token may attend to a removed one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional


@contextmanager
def masked_from(layers: nn.ModuleList, layer: int, hidden: torch.Tensor, mask_name: str) -> Iterator[None]:
    """Run at full length, but hide the key columns `hidden` from decoder layer `layer` on.

    Valid for calls without a cache. A hidden token may still see itself, so that no row is without a key; the results
    of hidden tokens mean nothing.

    Args:
        layers: all decoder layers.
        layer: K.
        hidden: (B, T) bool; tokens behind T, such as generated ones, are not hidden.
        mask_name: argument of a layer that takes the attention mask.
    """

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = dict(inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments)
        named.pop("self")
        named.update(named.pop("kwargs", {}))
        states = next(iter(named.values()))
        named[mask_name] = _hide(named.get(mask_name), hidden, states)
        return (), named

    with ExitStack() as stack:
        for module in layers[layer:]:
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _hide(mask: torch.Tensor | None, hidden: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    length, device = states.shape[-2], states.device
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
    columns = functional.pad(hidden.to(device), (0, length - hidden.shape[1]), value=False)[:, None, None, :]
    columns = columns & ~torch.eye(length, dtype=torch.bool, device=device)
    mask = mask.expand(len(hidden), -1, -1, -1)
    if mask.dtype == torch.bool:
        return mask & ~columns
    return mask.masked_fill(columns, torch.finfo(mask.dtype).min)


class Recorder:
    """What one decoder layer received, call by call: argument name -> tensor, or nested tensors."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.calls = tuple(names), list[dict[str, Any]]()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
        named = {**bound, **bound.get("kwargs", {})}
        self.calls.append({name: named[name] for name in self.names if named.get(name) is not None})


@contextmanager
def recorded(layer: nn.Module, names: Sequence[str]) -> Iterator[Recorder]:
    """Record the arguments `names` of every call of `layer`, as they are after all hooks registered before."""
    recorder = Recorder(names)
    handle = layer.register_forward_pre_hook(recorder, with_kwargs=True)
    try:
        yield recorder
    finally:
        handle.remove()
