"""Removing tokens inside the decoder of an unmodified model, by hooks on the model and on its decoder layers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache

from vtw_search.adapters import Adapter
from vtw_search.errors import RuntimeUseError
from vtw_search.operators import Operator
from vtw_search.runtime.slicing import crop_mask, gather_tokens, map_tensors
from vtw_search.tokens import Selection, TokenLayout, select

HookResult = tuple[tuple[Any, ...], dict[str, Any]] | None


@dataclass
class _Forward:
    """State of one forward call of the model, from its entry to its exit.

    Attributes:
        visual: (B, Q) bool, visual tokens among the new ones.
        padding: (B, Q) bool, padding among the new ones.
        selection: which of the new tokens stay; None while nothing leaves.
        keys: which positions the layers >= K see as keys; None when they see all.
        cut: arguments that were cut already, because all layers are given the same objects.
    """

    visual: torch.Tensor
    padding: torch.Tensor
    selection: Selection | None = None
    keys: Selection | None = None
    cut: dict[tuple[str, int], tuple[Any, Any]] = field(default_factory=dict)


class TokenRemoval:
    """Shortens what the decoder layers from `layer` on receive, in prefill and in every later step on its cache."""

    def __init__(self, model: nn.Module, adapter: Adapter, operator: Operator, layer: int) -> None:
        self.model, self.adapter, self.operator, self.layer = model, adapter, operator, layer
        self.arguments = adapter.layer_arguments
        self.forward: _Forward | None = None
        # Which positions of a cache's full key sequence the layers >= K hold.
        self.kept: weakref.WeakKeyDictionary[Cache, Selection] = weakref.WeakKeyDictionary()

    def register(self, stack: ExitStack) -> None:
        """Put the hooks on; closing `stack` takes them off."""
        layers = self.adapter.decoder_layers(self.model)
        handles = [
            self.model.register_forward_pre_hook(self._enter, with_kwargs=True),
            self.model.register_forward_hook(self._leave, always_call=True),
            layers[self.layer].register_forward_pre_hook(self._first_layer, with_kwargs=True),
        ]
        for layer in layers[self.layer + 1 :]:
            handles.append(layer.register_forward_pre_hook(self._later_layer, with_kwargs=True))
        for handle in handles:
            stack.callback(handle.remove)

    def _enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args:
            remedy = "call model(input_ids=..., pixel_values=..., attention_mask=...)"
            raise RuntimeUseError("under a policy the model takes keyword arguments only", remedy=remedy)
        visual, mask = self.adapter.visual_mask(model, kwargs), kwargs.get("attention_mask")
        # A 4D mask is the caller's own; its padding, if any, is hidden by the mask itself.
        padding = torch.zeros_like(visual)
        if mask is not None and mask.ndim == 2:
            padding = mask[:, -visual.shape[1] :] == 0
        self.forward = _Forward(visual, padding)

    def _leave(self, *_: Any) -> None:
        self.forward = None

    def _current(self) -> _Forward:
        if self.forward is None:
            remedy = "call the model itself or its generate, not an inner module"
            raise RuntimeUseError("under a policy the decoder runs through the model's own forward", remedy=remedy)
        return self.forward

    def _first_layer(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        forward = self._current()
        self._plan(forward, kwargs.get(self.arguments.cache))
        if forward.selection is not None:
            index = forward.selection.index
            args, kwargs = _map_hidden(args, kwargs, lambda hidden: gather_tokens(hidden, index, 1))
        return self._cut(forward, args, kwargs)

    def _later_layer(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        return self._cut(self._current(), args, kwargs)

    def _plan(self, forward: _Forward, cache: Cache | None) -> None:
        """Decide which of the new tokens stay, and what the layers >= K see as keys."""
        past = self._past(forward, cache)
        if bool(forward.visual.any()):
            forward.selection = select(self.operator.keep(TokenLayout(forward.visual, forward.padding)))
        elif past is None:
            return
        # The layers below K have stored the new tokens already.
        start = 0 if cache is None else cache.get_seq_length(0) - forward.visual.shape[1]
        forward.keys = _join(past, forward.selection, forward.visual, start)
        if cache is not None:
            self.kept[cache] = forward.keys

    def _past(self, forward: _Forward, cache: Cache | None) -> Selection | None:
        """Return what the layers >= K hold of the earlier tokens; None when they hold everything."""
        if cache is None:
            return None
        if type(cache) is not DynamicCache:
            remedy = "use the default DynamicCache"
            raise RuntimeUseError("under a policy the cache must be dynamic", value=type(cache).__name__, remedy=remedy)
        known = self.kept.get(cache)
        full = cache.get_seq_length(0) - forward.visual.shape[1]
        expected = (full, forward.visual.shape[0]) if known is None else (known.length, known.index.shape[0])
        held = (cache.get_seq_length(self.layer), forward.visual.shape[0])
        if held != expected:
            raise RuntimeUseError(
                "under a policy a cache may only be changed by the model's own forward",
                value=f"(entries, rows) {held} at layer {self.layer} instead of {expected}",
                remedy="start with a new cache; cropping one (assisted decoding) is not supported",
            )
        return known

    def _cut(self, forward: _Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Return the layer's arguments for the tokens that stay, or None when they may stay as they are."""
        keys, selection = forward.keys, forward.selection
        if keys is None:
            return None
        changed, mask = dict(kwargs), self.arguments.mask
        index = None if selection is None else selection.index
        if index is not None:
            for name, dim in self.arguments.tokens.items():
                changed[name] = self._once(name, kwargs, partial(_gather_all, index=index, dim=dim))
        queries = forward.visual.shape[1]
        changed[mask] = self._once(mask, kwargs, lambda value: crop_mask(value, index, keys, queries))
        return args, changed

    def _once(self, name: str, kwargs: dict[str, Any], cut: Callable[[Any], Any]) -> Any:
        """Cut an argument, or return the result of the layer before if it was given the same object."""
        value, cuts = kwargs.get(name), self._current().cut
        if (name, id(value)) not in cuts:
            # The value itself is kept as well, so that its id cannot be given to another object.
            cuts[name, id(value)] = (value, cut(value))
        return cuts[name, id(value)][1]


def _gather_all(value: Any, index: torch.Tensor, dim: int) -> Any:
    return map_tensors(value, lambda tensor: gather_tokens(tensor, index, dim))


def _map_hidden(
    args: tuple[Any, ...], kwargs: dict[str, Any], function: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replace the hidden states, which families pass by position or by name."""
    if args:
        return (function(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": function(kwargs["hidden_states"])}


def _join(past: Selection | None, new: Selection | None, like: torch.Tensor, start: int) -> Selection:
    """Return the key positions of the layers >= K: what they hold of the past, then what stays of the new tokens."""
    batch, length = like.shape
    earlier = past if past is not None else _everything(batch, start, like.device)
    later = new if new is not None else _everything(batch, length, like.device)
    index = torch.cat([earlier.index, later.index + start], dim=1)
    if earlier.filler is None and later.filler is None:
        return Selection(index, None)
    return Selection(index, torch.cat([_fillers(earlier), _fillers(later)], dim=1))


def _everything(batch: int, length: int, device: torch.device) -> Selection:
    return Selection(torch.arange(length, device=device).expand(batch, length), None)


def _fillers(selection: Selection) -> torch.Tensor:
    missing = torch.zeros_like(selection.index, dtype=torch.bool)
    return missing if selection.filler is None else selection.filler
