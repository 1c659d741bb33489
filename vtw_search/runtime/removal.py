"""Removing tokens inside the decoder of an unmodified model, by hooks on the model and on its decoder layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Cache

from vtw_search.adapters import Adapter, layer_kinds
from vtw_search.errors import RuntimeUseError
from vtw_search.runtime.caches import (
    Held,
    call_is_through,
    check_cache,
    recall,
    remember,
    stored_length,
    visible_past,
    whole_lengths,
)
from vtw_search.runtime.calls import check_call, check_mark, check_mark_fits, shape_of
from vtw_search.runtime.capture import argument_names, by_name
from vtw_search.runtime.forward import Forward
from vtw_search.runtime.prompts import Prompts, noted_generations
from vtw_search.runtime.slicing import crop_mask, gather_all, tensors_in
from vtw_search.runtime.stages import Insight, Present, ReadyStage
from vtw_search.runtime.vision import TowerReader
from vtw_search.scorers import VisionNeeds
from vtw_search.tokens import Grid, everything

HookResult = tuple[tuple[Any, ...], dict[str, Any]] | None


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.forward: Forward | None = None
        self.visual: torch.Tensor | None = None
        self.tower = TowerReader()
        self.prompts = Prompts()
        self.left: tuple[torch.Tensor, ...] = ()


class TokenRemoval:
    """The hooks of one model. What a call does is asked when the call begins, so that threads may differ."""

    def __init__(self, model: nn.Module, adapter: Adapter, current: Callable[[], tuple[ReadyStage, ...]]) -> None:
        """Prepare for `model`; `current()` returns the stages that the calling thread wants, none to keep all."""
        self.model, self.adapter, self.current = model, adapter, current
        self.arguments, self.kinds = adapter.layer_arguments, layer_kinds(model.config)
        self.tower = adapter.vision_tower(model)
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
        if self.tower is not None:
            handles.append(self.tower.module.register_forward_pre_hook(self._before_tower))
            handles.append(self.tower.module.register_forward_hook(self._after_tower, always_call=True))
        for handle in handles:
            stack.callback(handle.remove)
        stack.enter_context(noted_generations(self.model, lambda: self.thread.prompts))

    def mark_visual(self, visual: torch.Tensor | None) -> None:
        """Tell where the visual tokens of the calling thread's next call are, (B, T) bool; None takes a mark back."""
        check_mark(visual)
        self.thread.visual = visual

    @property
    def marked(self) -> torch.Tensor | None:
        """The mark of the calling thread's next call, None without one."""
        return self.thread.visual

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Set aside what is noted of the calling thread's calls, for others that leave no trace."""
        noted = dict(vars(self.thread))
        vars(self.thread).update(vars(_PerThread()))
        try:
            yield
        finally:
            vars(self.thread).update(noted)

    @property
    def visual_left(self) -> tuple[torch.Tensor, ...]:
        """Per stage, (B,) how many visual tokens it left in the calling thread's last prefill."""
        return self.thread.left

    def _before_tower(self, *_: Any) -> None:
        assert self.tower is not None
        needs = VisionNeeds()
        for ready in self.current():
            needs |= ready.vision_needs(self.tower.layers)
        self.thread.tower.start(self.tower, needs)

    def _after_tower(self, module: nn.Module, args: Any, output: Any) -> None:
        self.thread.tower.stop(output)

    def _enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        left_over, self.thread.forward = self.thread.forward, None
        if left_over is not None:
            left_over.close()  # the call before was interrupted, so that it was never left
        marked, self.thread.visual = self.thread.visual, None
        stages, store = self.current(), kwargs.get(self.arguments.cache)
        if not stages:
            self.thread.left = ()
            if store is not None:
                recall(store, (), 0)
            self.thread.forward = Forward()
            return None
        if args:
            remedy = "call model(input_ids=..., pixel_values=..., attention_mask=...)"
            raise RuntimeUseError("under a policy the model takes keyword arguments only", remedy=remedy)
        if marked is None:
            # Whoever brings images has placeholders for them, or is refused by the model itself: to ask would make the
            # host wait for the device.
            visual = self.adapter.visual_mask(self.model, kwargs)
        else:
            check_mark_fits(marked, kwargs)
            visual = marked if bool(marked.any()) else None
        self.thread.prompts.begin(kwargs, store)
        self.thread.forward = forward = self._plan(stages, visual, kwargs)
        if forward.past is not None and forward.past.recounted is not None:
            return (), {**kwargs, "position_ids": _recounted_positions(forward.past, forward.queries, kwargs)}
        return None

    def _plan(self, stages: tuple[ReadyStage, ...], visual: torch.Tensor | None, kwargs: dict[str, Any]) -> Forward:
        """Find out whether new tokens leave, and what the layers are going to see as keys."""
        store, places = kwargs.get(self.arguments.cache), tuple(ready.layer for ready in stages)
        rows, queries = shape_of(kwargs) if visual is None else visual.shape
        past = held = None if store is None else recall(store, places, rows)
        if held is None and visual is None:
            return Forward()
        check_call(kwargs, leave=visual is not None)
        if past is None and store is not None:
            assert visual is not None
            start = stored_length(store, 0)
            past = Held(places, (everything(rows, 0, start, visual.device),) * len(places), start, start)
        forward = Forward(stages, queries, past)
        if visual is not None:
            self._bring(forward, visual, kwargs)
        if store is not None and held is not None:
            forward.until_first_layer.enter_context(whole_lengths(store, places[0], held.total))
        return forward

    def _bring(self, forward: Forward, visual: torch.Tensor, kwargs: dict[str, Any]) -> None:
        """Note which of the new tokens may leave, and what their stages look at."""
        part = self.thread.prompts.part(kwargs, None if forward.past is None else forward.start)
        part.check_stages(forward.stages)
        padding = _padding(visual, kwargs.get("attention_mask"))
        if padding is None:
            padding = torch.zeros_like(visual)
        else:
            part.check_padding(padding)
        inside = (torch.arange(visual.shape[1], device=visual.device) < part.length).expand(visual.shape)
        visual = visual & inside
        forward.present = [Present.of(visual, padding, inside & ~padding, part.ends)]
        forward.insight = Insight(whole_visual=visual, grids=self._grids(forward.stages, visual, kwargs))
        forward.features = next(tensors_in(kwargs.get("mm_encoder_outputs")), None)

    def _grids(self, stages: tuple[ReadyStage, ...], visual: torch.Tensor, kwargs: dict[str, Any]) -> list[Grid]:
        if not any(ready.needs_grids for ready in stages):
            return []
        return self.adapter.grids(self.model, kwargs, int(visual.sum()))

    def _leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        forward, self.thread.forward = self.thread.forward, None
        if forward is not None:
            forward.close()
            if forward.present is not None:
                self.thread.left = tuple(present.visual.sum(dim=1) for present in forward.present[1:])
            # A call that raised has no output; its cache stays marked as half-updated.
            if output is not None and forward.noted is not None:
                call_is_through(forward.noted)

    def _before_layer(self, number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        forward = self.thread.forward
        if forward is None:
            remedy = "call the model itself, not an inner module; a model whose generate calls one cannot be used"
            raise RuntimeUseError("under a policy the decoder runs through the model's own forward", remedy=remedy)
        if not forward.stages or forward.passes(number, kwargs.get(self.arguments.mask, ...)):
            return None
        if number == 0:
            forward.until_first_layer.close()
        forward.end_reading()
        level = forward.level(number)
        result = None if level < 0 else self._shortened(forward, number, level, layer, args, kwargs)
        forward.begin_reading(number)
        return result

    def _shortened(
        self, forward: Forward, number: int, level: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HookResult:
        """Return the arguments of a layer at or above the first stage."""
        names = argument_names(layer)
        acts = forward.stages[level].layer == number
        hidden = None
        if acts and forward.present is not None:
            if forward.insight.vision is None and any(ready.reads == "vision" for ready in forward.stages):
                forward.insight = replace(forward.insight, vision=self.thread.tower.notes_for(forward.features))
            hidden = forward.act(level, args[0] if args else kwargs[names[0]])
        if acts:
            self._note_held(forward, layer, args, kwargs)
        if forward.all_is_seen(level) and kwargs.get(self.arguments.mask, ...) is None:
            return None
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        if hidden is not None:
            named[names[0]] = hidden
        self._cut(forward, number, level, named, length=named[names[0]].shape[-2])
        return tuple(named.pop(name) for name in names[: len(args)]), named

    def _note_held(self, forward: Forward, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember what the layers are going to hold; it counts once this call is through."""
        store = kwargs.get(self.arguments.cache)
        if store is None:
            store = by_name(layer, (args, kwargs)).get(self.arguments.cache)
        if store is None:
            return
        if forward.past is None:
            check_cache(store)  # the model itself made it, so that nothing came before
        remember(store, replace(forward.held(), whole=False))
        forward.noted = store

    def _cut(self, forward: Forward, number: int, level: int, named: dict[str, Any], length: int) -> None:
        """Cut the layer's arguments down to the tokens that stay.

        Some models drop all tokens but the last ones themselves, where only those are asked for; `length` says how many
        tokens the layer is given.
        """
        present = forward.new(level)
        if present is not None:
            for name, dim in self.arguments.tokens.items():
                if named.get(name) is not None:
                    columns = present.places if name in self.arguments.positions else present.columns
                    gather = partial(gather_all, index=columns[:, -length:], length=forward.queries, dim=dim)
                    named[name] = forward.cut[name, level, length].of(named[name], gather)
        mask, store = named.get(self.arguments.mask), named.get(self.arguments.cache)
        past = self._visible_past(forward, store, number)
        index = None if present is None else present.columns[:, -length:]
        crop = partial(self._crop_mask, forward, level, index, past)
        named[self.arguments.mask] = forward.cut[self.arguments.mask, level, past, length].of(mask, crop)

    def _visible_past(self, forward: Forward, store: Cache | None, number: int) -> int:
        """Return how many earlier keys a layer sees; one that reads another layer's keys sees what its kind does."""
        if store is None:
            return 0
        past = visible_past(store, number)
        if past is not None:
            forward.past_by_kind[self.kinds[number]] = past
        return forward.past_by_kind[self.kinds[number]]

    def _crop_mask(self, forward: Forward, level: int, index: torch.Tensor | None, past: int, mask: Any) -> Any:
        if mask is not None and not (isinstance(mask, torch.Tensor) and mask.ndim == 4):
            remedy = "load the model with attn_implementation eager or sdpa"
            raise RuntimeUseError("a layer's attention mask must be 4D", value=type(mask).__name__, remedy=remedy)
        keys = forward.keys(level)
        if forward.past is not None:
            earlier = forward.past.keys(level).length
            keys = keys.columns(slice(earlier - past, None))
        return crop_mask(mask, index, keys, forward.start + forward.queries, forward.queries)


def _padding(visual: torch.Tensor, attention_mask: Any) -> torch.Tensor | None:
    """Return (B, T) bool. A 4D mask is the caller's own; its padding, if any, is hidden by the mask itself."""
    if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
        return attention_mask[:, -visual.shape[1] :] == 0
    return None


def _recounted_positions(held: Held, queries: int, kwargs: dict[str, Any]) -> torch.Tensor:
    """Return the positions of new tokens, less the positions that are left out of the count."""
    assert held.recounted is not None
    given = kwargs.get("position_ids")
    if given is None:
        given = torch.arange(held.total, held.total + queries, device=held.recounted.device)[None]
    return given - held.recounted[:, None].to(given.device)
