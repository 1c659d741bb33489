"""Removing tokens inside the decoder of an unmodified model, by hooks on the model and on its decoder layers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Cache

from vtw_search.adapters import Adapter, layer_kinds
from vtw_search.errors import RuntimeUseError
from vtw_search.operators import Operator
from vtw_search.runtime.caches import Held, call_is_through, check_cache, recall, remember, visible_past, whole_lengths
from vtw_search.runtime.calls import check_call, check_mark, check_mark_fits, shape_of
from vtw_search.runtime.capture import argument_names, by_name
from vtw_search.runtime.slicing import crop_mask, gather_tokens, map_tensors
from vtw_search.tokens import Selection, TokenLayout, everything, select

HookResult = tuple[tuple[Any, ...], dict[str, Any]] | None


@dataclass(frozen=True)
class Removal:
    """What one call of the model is to do: `operator` acts on the input of decoder layer `layer`."""

    operator: Operator
    layer: int


@dataclass
class _Forward:
    """State of one forward call of the model, from its entry to its exit.

    Attributes:
        layer: K, or `_NEVER` when nothing leaves in this call and nothing has left before.
        queries: how many new tokens there are.
        past: what the layers from K on hold of earlier tokens; None when they have no cache.
        selection: which of the new tokens stay; None when all do.
        noted: the cache that says already what it holds once this call is through.
        until_first_layer: closes what has to be over before the first decoder layer runs.
        cut: arguments that were cut already, because all layers are given the same objects.
        past_by_kind: kind of layer -> how many earlier keys the layers of this kind see.
    """

    layer: int
    queries: int = 0
    past: Held | None = None
    selection: Selection | None = None
    noted: Cache | None = None
    until_first_layer: ExitStack = field(default_factory=ExitStack)
    cut: dict[tuple[Any, ...], tuple[Any, Any]] = field(default_factory=dict)
    past_by_kind: dict[str, int] = field(default_factory=dict)

    @property
    def start(self) -> int:
        """How many tokens came before."""
        return 0 if self.past is None else self.past.total

    @property
    def new(self) -> Selection | None:
        """Which positions of the whole sequence stay of the new tokens; None when all do."""
        if self.selection is None:
            return None
        return Selection(self.selection.index + self.start, self.selection.filler)

    @property
    def all_is_seen(self) -> bool:
        """Whether every new token stays and none of the held keys is a filler."""
        return self.selection is None and self.past is not None and self.past.kept.filler is None


class _PerThread(threading.local):
    forward: _Forward | None = None
    visual: torch.Tensor | None = None


class TokenRemoval:
    """The hooks of one model. What a call does is asked when the call begins, so that threads may differ."""

    def __init__(self, model: nn.Module, adapter: Adapter, current: Callable[[], Removal | None]) -> None:
        """Prepare for `model`; `current()` returns what the calling thread wants, None to keep every token."""
        self.model, self.adapter, self.current = model, adapter, current
        self.arguments, self.kinds = adapter.layer_arguments, layer_kinds(model.config)
        self.thread = _PerThread()

    def register(self, stack: ExitStack) -> None:
        """Put the hooks on; closing `stack` takes them off."""
        handles = [
            self.model.register_forward_pre_hook(self._enter, with_kwargs=True),
            self.model.register_forward_hook(self._leave, always_call=True),
        ]
        for number, layer in enumerate(self.adapter.decoder_layers(self.model)):
            hook = partial(self._before_layer, number)
            handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
        for handle in handles:
            stack.callback(handle.remove)

    def mark_visual(self, visual: torch.Tensor | None) -> None:
        """Tell where the visual tokens of the calling thread's next call are, (B, T) bool; None takes a mark back."""
        check_mark(visual)
        self.thread.visual = visual

    def _enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        left_over, self.thread.forward = self.thread.forward, None
        if left_over is not None:
            left_over.until_first_layer.close()  # the call before was interrupted, so that it was never left
        marked, self.thread.visual = self.thread.visual, None
        removal, store = self.current(), kwargs.get(self.arguments.cache)
        if removal is None:
            if store is not None:
                recall(store, None, 0)
            self.thread.forward = _Forward(layer=_NEVER)
            return
        if args:
            remedy = "call model(input_ids=..., pixel_values=..., attention_mask=...)"
            raise RuntimeUseError("under a policy the model takes keyword arguments only", remedy=remedy)
        if marked is not None:
            check_mark_fits(marked, kwargs)
        visual = self.adapter.visual_mask(self.model, kwargs) if marked is None else marked
        self.thread.forward = self._plan(removal, visual, kwargs)

    def _plan(self, removal: Removal, visual: torch.Tensor | None, kwargs: dict[str, Any]) -> _Forward:
        """Decide which of the new tokens stay, and what the layers >= K are going to see as keys."""
        store = kwargs.get(self.arguments.cache)
        rows, queries = shape_of(kwargs) if visual is None else visual.shape
        held = None if store is None else recall(store, removal.layer, rows)
        selection = None if visual is None else _choose(removal.operator, visual, kwargs.get("attention_mask"))
        if held is None and selection is None:
            return _Forward(layer=_NEVER)
        check_call(kwargs, selection)
        past = held
        if past is None and store is not None and selection is not None:
            start = store.get_seq_length(0)
            past = Held(removal.layer, everything(rows, 0, start, selection.index.device), start, start)
        forward = _Forward(removal.layer, queries, past, selection)
        if store is not None and held is not None:
            forward.until_first_layer.enter_context(whole_lengths(store, removal.layer, held.total))
        return forward

    def _leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        forward, self.thread.forward = self.thread.forward, None
        if forward is not None:
            forward.until_first_layer.close()
            # A call that raised has no output; its cache stays marked as half-updated.
            if output is not None and forward.noted is not None:
                call_is_through(forward.noted)

    def _before_layer(self, number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        forward = self.thread.forward
        if forward is None:
            remedy = "call the model itself, not an inner module; a model whose generate calls one cannot be used"
            raise RuntimeUseError("under a policy the decoder runs through the model's own forward", remedy=remedy)
        if forward.layer == _NEVER:
            return None
        if number == 0:
            forward.until_first_layer.close()
        if number < forward.layer:
            return None
        if number == forward.layer:
            self._note_held(forward, layer, args, kwargs)
        if forward.all_is_seen and kwargs.get(self.arguments.mask, ...) is None:
            return None  # decoding without padding: the layer's arguments are right as they are
        names = argument_names(layer)
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        if number == forward.layer and forward.selection is not None:
            named[names[0]] = gather_tokens(named[names[0]], forward.selection.index, -2)
        self._cut(forward, number, named, length=named[names[0]].shape[-2])
        return tuple(named.pop(name) for name in names[: len(args)]), named

    def _note_held(self, forward: _Forward, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember what the layers from K on are going to hold; it counts once this call is through."""
        store = kwargs.get(self.arguments.cache)
        if store is None:
            store = by_name(layer, (args, kwargs)).get(self.arguments.cache)
        if store is None:
            return
        held = forward.past and forward.past.followed_by(forward.new, forward.queries)
        if held is None:
            # The model itself made this cache, so that nothing came before.
            check_cache(store)
            assert forward.selection is not None
            held = Held(forward.layer, forward.selection, forward.queries, forward.queries)
        remember(store, replace(held, whole=False))
        forward.noted = store

    def _cut(self, forward: _Forward, number: int, named: dict[str, Any], length: int) -> None:
        """Cut the layer's arguments down to the tokens that stay.

        Some models drop all tokens but the last ones themselves, where only those are asked for; `length` says how many
        tokens the layer is given.
        """
        index = None if forward.selection is None else forward.selection.index[:, -length:]
        if index is not None:
            gather = partial(_gather_all, index=index, length=forward.queries)
            for name, dim in self.arguments.tokens.items():
                if named.get(name) is not None:
                    named[name] = _once(forward, (name, length), named[name], partial(gather, dim=dim))
        mask, store = named.get(self.arguments.mask), named.get(self.arguments.cache)
        past = self._visible_past(forward, store, number)
        crop = partial(self._crop_mask, forward, index, past)
        named[self.arguments.mask] = _once(forward, (self.arguments.mask, past, length), mask, crop)

    def _visible_past(self, forward: _Forward, store: Cache | None, number: int) -> int:
        """Return how many earlier keys a layer sees; one that reads another layer's keys sees what its kind does."""
        if store is None:
            return 0
        past = visible_past(store, number)
        if past is not None:
            forward.past_by_kind[self.kinds[number]] = past
        return forward.past_by_kind[self.kinds[number]]

    def _crop_mask(self, forward: _Forward, index: torch.Tensor | None, past: int, mask: Any) -> Any:
        if mask is not None and not (isinstance(mask, torch.Tensor) and mask.ndim == 4):
            remedy = "load the model with attn_implementation eager or sdpa"
            raise RuntimeUseError("a layer's attention mask must be 4D", value=type(mask).__name__, remedy=remedy)
        total = forward.start + forward.queries
        if forward.past is None:
            assert forward.new is not None
            keys = forward.new
        else:
            after = forward.past.followed_by(forward.new, forward.queries).keys
            earlier = forward.past.keys.length
            keys = after.columns(slice(earlier - past, None))
        return crop_mask(mask, index, keys, total, forward.queries)


_NEVER = -1


def _choose(operator: Operator, visual: torch.Tensor, attention_mask: Any) -> Selection | None:
    # A 4D mask is the caller's own; its padding, if any, is hidden by the mask itself.
    padding = torch.zeros_like(visual)
    if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
        padding = attention_mask[:, -visual.shape[1] :] == 0
    return select(operator.keep(TokenLayout(visual, padding)))


def _once(forward: _Forward, key: tuple[Any, ...], value: Any, cut: Callable[[Any], Any]) -> Any:
    """Cut an argument, or return the result of the layer before if it was given the same object."""
    place = (*key, id(value))
    if place not in forward.cut:
        # The value itself is kept as well, so that its id cannot be given to another object.
        forward.cut[place] = (value, cut(value))
    return forward.cut[place][1]


def _gather_all(value: Any, index: torch.Tensor, length: int, dim: int) -> Any:
    """Take tokens of every tensor that has all `length` of them; one that the model has cut already stays."""
    return map_tensors(
        value, lambda tensor: gather_tokens(tensor, index, dim) if tensor.shape[dim] == length else tensor
    )
