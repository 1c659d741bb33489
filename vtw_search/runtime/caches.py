"""What the runtime knows of key-value caches: what is left of the sequence in them, and how long they say they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DummyLayer

from vtw_search.adapters import keeps_keys_and_values
from vtw_search.errors import RuntimeUseError
from vtw_search.tokens import Selection, everything


@dataclass(frozen=True)
class Held:
    """What a cache holds of a sequence at the layers from K on.

    Attributes:
        layer: K.
        kept: the positions that were kept of the first `covered` ones, in order; all later ones were kept.
        covered: how far `kept` reaches.
        total: length of the whole sequence, removed tokens included.
        whole: false while a call is on its way, so that some layers hold its tokens already and others do not.
    """

    layer: int
    kept: Selection
    covered: int
    total: int
    whole: bool = True

    @property
    def keys(self) -> Selection:
        """All positions that were kept."""
        rows, device = self.kept.index.shape[0], self.kept.index.device
        return self.kept.followed_by(everything(rows, self.covered, self.total - self.covered, device))

    @property
    def length(self) -> int:
        """How many entries each layer from K on has, where no window limits it."""
        return self.kept.length + self.total - self.covered

    def followed_by(self, new: Selection | None, queries: int) -> Held:
        """Return what is held after `queries` more tokens, of which `new` stayed; None for all of them."""
        total = self.total + queries
        if new is None:
            return Held(self.layer, self.kept, self.covered, total)
        return Held(self.layer, self.keys.followed_by(new), total, total)

    def cropped(self, total: int) -> Held:
        """Return what is left after the sequence was cropped to `total` positions, as assisted decoding does.

        Raises:
            RuntimeUseError: some of the positions that were cropped off had been removed, so that layers lost others.
        """
        if total >= self.covered:
            return Held(self.layer, self.kept, self.covered, total)
        gone, length = self.covered - total, self.kept.length
        last = self.kept.columns(slice(max(0, length - gone), None)).index
        if length < gone or not bool((last == torch.arange(total, self.covered, device=last.device)).all()):
            raise _changed(f"{self.total - total} positions were cropped, some of which had left before")
        return Held(self.layer, self.kept.columns(slice(0, length - gone)), total, total)


class NotedCache(DynamicCache):
    """A dynamic cache with a note of what it holds, which follows whatever is done to the rows.

    The default cache becomes one when tokens leave: the note is copied and stored with the keys that it is about.
    """

    held: Held

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the rows; beam search does."""
        super().reorder_cache(beam_idx)
        self._follow(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows, by number or by a bool mask."""
        super().batch_select_indices(indices)
        self._follow(lambda rows: rows[indices.to(rows.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        super().batch_repeat_interleave(repeats)
        self._follow(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def _follow(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        kept = self.held.kept
        filler = None if kept.filler is None else change(kept.filler)
        self.held = replace(self.held, kept=Selection(change(kept.index), filler))


def remember(cache: Cache, held: Held) -> None:
    """Note on the cache itself what it holds, so that a copy of it, or a later policy block, knows as well."""
    cache.__class__ = NotedCache
    cache.held = held  # type: ignore[attr-defined]


def call_is_through(cache: Cache) -> None:
    """Note that every layer holds what was noted."""
    assert isinstance(cache, NotedCache)
    cache.held = replace(cache.held, whole=True)


def recall(cache: Cache, layer: int | None, rows: int) -> Held | None:
    """Return what `cache` holds; None when no token was ever removed from it.

    Args:
        cache: as the caller passed it, before the forward.
        layer: K of the policy that is active; None when it keeps every token.
        rows: batch size of the call.

    Raises:
        RuntimeUseError: the cache cannot be used under a policy, was filled under another one, or was changed by
            something else than the model's own forward.
    """
    held = cache.held if isinstance(cache, NotedCache) else None
    if layer is not None:
        check_cache(cache)
    total = cache.get_seq_length(0)
    if held is None or total == 0:
        if layer is not None and total and cache.get_seq_length(layer) != total:
            raise _changed(f"{cache.get_seq_length(layer)} positions at layer {layer}, {total} at layer 0")
        return None
    if not held.whole:
        raise _changed("a call that did not reach its end")
    if held.layer != layer:
        remedy = "finish a conversation under the policy that it was begun with"
        value = "keep-all" if layer is None else layer
        raise RuntimeUseError(f"this cache was filled with K = {held.layer}", value=value, remedy=remedy)
    if total < held.total:
        held = held.cropped(total)
    found = (total, cache.get_seq_length(held.layer), _rows(cache))
    expected = (held.total, held.length, rows)
    if found != expected or held.kept.index.shape[0] != rows:
        raise _changed(f"(positions, those from K on, rows) {found} instead of {expected}")
    return held


def check_cache(cache: Cache) -> None:
    """Raise RuntimeUseError unless `cache` grows with every token and holds nothing but keys and values."""
    kinds = {type(layer) for layer in cache.layers}
    dynamic = type(cache) in (DynamicCache, NotedCache)
    if not dynamic or not all(map(keeps_keys_and_values, kinds)):
        value = sorted(kind.__name__ for kind in kinds) if dynamic else type(cache).__name__
        remedy = "use the default DynamicCache"
        raise RuntimeUseError("under a policy the cache must be dynamic", value=value, remedy=remedy)


def visible_past(cache: Cache, layer: int) -> int | None:
    """Return how many stored keys a layer sees beside the new ones; None when it reads another layer's keys."""
    if layer >= len(cache.layers):
        return 0
    stored: Any = cache.layers[layer]
    if isinstance(stored, DummyLayer):
        return None
    entries = 0 if stored.keys is None or stored.keys.numel() == 0 else int(stored.keys.shape[-2])
    window = getattr(stored, "sliding_window", None)
    return entries if window is None else min(entries, window - 1)


@contextmanager
def whole_lengths(cache: Cache, layer: int, total: int) -> Iterator[None]:
    """Let the layers from `layer` on say how long they would be, had no token left.

    Models size their masks by the first layer of each kind. With K between those layers, one mask would come out full
    and the other one short.
    """
    shadowed: list[Any] = []
    seen: set[bool] = set()
    for number, stored in enumerate(cache.layers):
        sliding = bool(getattr(stored, "is_sliding", False))
        if sliding not in seen and number >= layer:
            _shadow(stored, total)
            shadowed.append(stored)
        seen.add(sliding)
    try:
        yield
    finally:
        for stored in shadowed:
            for name in ("get_seq_length", "get_mask_sizes"):
                stored.__dict__.pop(name, None)


def _shadow(stored: Any, total: int) -> None:
    stand_in = copy.copy(stored)
    stand_in.__dict__["get_seq_length"] = lambda: total
    if hasattr(stand_in, "cumulative_length"):
        stand_in.cumulative_length = total
    stored.__dict__["get_seq_length"] = lambda: total
    stored.__dict__["get_mask_sizes"] = stand_in.get_mask_sizes


def _rows(cache: Cache) -> int:
    first: Any = cache.layers[0]
    keys = first.keys
    return 0 if keys is None else int(keys.shape[0])


def _changed(value: str) -> RuntimeUseError:
    rule = "under a policy a cache may only be changed by the model's own forward"
    return RuntimeUseError(rule, value=value, remedy="start with a new cache")
