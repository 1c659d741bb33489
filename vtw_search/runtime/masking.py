"""The oracle of removal. It shares with `removal` how a layer's arguments are named (`capture`), and nothing else.

Masking computes what a policy must compute, at full length: from layer K on, no token may attend to a removed one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vtw_search.adapters import LayerArguments
from vtw_search.runtime.capture import argument_names, by_name


@contextmanager
def masked_from(layers: nn.ModuleList, layer: int, hidden: torch.Tensor, arguments: LayerArguments) -> Iterator[None]:
    """Run the calling thread at full length, but hide the key columns `hidden` from decoder layer `layer` on.

    A hidden token may still see itself, so that no row is without a key; the results of hidden tokens mean nothing.

    Args:
        layers: all decoder layers.
        layer: K, at least 1.
        hidden: (B, T) bool, of the whole sequence; tokens behind T, such as later ones, are not hidden.
        arguments: names of a layer's arguments.
    """

    width, thread = 0, threading.get_ident()

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal width
        if threading.get_ident() != thread:
            return None
        named = by_name(module, (args, kwargs))
        states = next(iter(named.values()))
        if module is layers[layer]:
            store = named.get(arguments.cache)
            # The cache of layer 0, which came before, holds the new tokens already.
            width = states.shape[-2] if store is None else store.get_seq_length(0)
        named[arguments.mask] = _hide(named.get(arguments.mask), hidden, states, width)
        return tuple(named.pop(name) for name in argument_names(module)[: len(args)]), named

    with ExitStack() as stack:
        for module in layers[layer:]:
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _hide(mask: torch.Tensor | None, hidden: torch.Tensor, states: torch.Tensor, width: int) -> torch.Tensor:
    # Where a model has dropped all queries but the last, there are fewer rows than new tokens.
    rows, device = states.shape[-2], states.device
    if mask is None:
        mask = torch.ones(width, width, dtype=torch.bool, device=device).tril()[None, None, width - rows :]
    columns = functional.pad(hidden.to(device), (0, width - hidden.shape[1]), value=False)[:, None, None, :]
    columns = columns & ~torch.eye(width, dtype=torch.bool, device=device)[width - rows :]
    # Layers with a window have the last positions alone in their cache.
    columns, mask = columns[..., width - mask.shape[-1] :], mask.expand(len(hidden), -1, -1, -1)
    if mask.dtype == torch.bool:
        return mask & ~columns
    return mask.masked_fill(columns, torch.finfo(mask.dtype).min)
