"""What the runtime knows of key-value caches: what is left of the sequence in them, and how long they say they are."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import Cache, DynamicCache

from vtw_search.adapters import keeps_keys_and_values
from vtw_search.adapters.cache_layers import DummyLayer
from vtw_search.errors import RuntimeUseError
from vtw_search.tokens import Selection, everything


@dataclass(frozen=True)
class Held:
    """What a cache holds of a sequence at the layers where tokens have left.

    Attributes:
        layers: first layer of each level, rising: the layers of the policy's stages. Layers below the first hold all.
        kept: per level, the positions that were kept of the first `covered` ones, in order; all later ones were kept.
        covered: how far `kept` reaches.
        total: length of the whole sequence, removed tokens included.
        recounted: (B,) how many positions are left out of the count of positions; None where they all count.
        whole: false while a call is on its way, so that some layers hold its tokens already and others do not.
    """

    layers: tuple[int, ...]
    kept: tuple[Selection, ...]
    covered: int
    total: int
    recounted: torch.Tensor | None = None
    whole: bool = True

    @property
    def rows(self) -> int:
        """Batch size."""
        return int(self.kept[0].index.shape[0])

    def keys(self, level: int) -> Selection:
        """Return all positions that were kept at a level."""
        kept = self.kept[level]
        return kept.followed_by(everything(self.rows, self.covered, self.total - self.covered, kept.index.device))

    def length(self, level: int) -> int:
        """Return how many entries each layer of a level has, where no window limits it; all for level -1."""
        return self.total if level < 0 else self.kept[level].length + self.total - self.covered

    def level(self, layer: int) -> int:
        """Return the level of a layer, -1 below the first."""
        return bisect_right(self.layers, layer) - 1

    def followed_by(self, new: Sequence[Selection] | None, queries: int, recounted: torch.Tensor | None = None) -> Held:
        """Return what is held after `queries` more tokens, of which `new` stayed per level; None for all of them."""
        total = self.total + queries
        if new is None:
            return replace(self, total=total)
        kept = tuple(self.keys(level).followed_by(selection) for level, selection in enumerate(new))
        if self.recounted is not None and recounted is not None:
            recounted = self.recounted + recounted
        return Held(self.layers, kept, total, total, recounted)

    def cropped(self, gone: int) -> Held:
        """Return what is left after the last `gone` positions were cropped off, as assisted decoding does.

        Raises:
            RuntimeUseError: some of them had been removed, so that layers lost others.
        """
        total = self.total - gone
        if total >= self.covered:
            return replace(self, total=total)
        return replace(self, kept=tuple(self._cut(kept, total) for kept in self.kept), covered=total, total=total)

    def _cut(self, kept: Selection, total: int) -> Selection:
        gone = self.covered - total
        last = kept.columns(slice(max(0, kept.length - gone), None)).index
        if kept.length < gone or not bool((last == torch.arange(total, self.covered, device=last.device)).all()):
            raise _changed(f"{self.total - total} positions were cropped, some of which had left before")
        return kept.columns(slice(0, kept.length - gone))


class NotedCache(DynamicCache):
    """A dynamic cache with a note of what it holds, which follows whatever is done to the rows.

    The default cache becomes one when tokens leave: the note is copied and stored with the keys that it is about.
    """

    held: Held

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens went into a layer; for layer 0, which positions go on from, removed ones included."""
        length = super().get_seq_length(layer_idx)
        if layer_idx or self.held.layers[0] or "get_seq_length" in vars(self.layers[0]):
            return length
        return length + self.held.total - self.held.length(0)

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
        def followed(kept: Selection) -> Selection:
            return Selection(change(kept.index), None if kept.filler is None else change(kept.filler))

        held, recounted = self.held, self.held.recounted
        kept = tuple(followed(kept) for kept in held.kept)
        self.held = replace(held, kept=kept, recounted=None if recounted is None else change(recounted))


def remember(cache: Cache, held: Held) -> None:
    """Note on the cache itself what it holds, so that a copy of it, or a later policy block, knows as well."""
    cache.__class__ = NotedCache
    cache.held = held  # type: ignore[attr-defined]


def call_is_through(cache: Cache) -> None:
    """Note that every layer holds what was noted."""
    assert isinstance(cache, NotedCache)
    cache.held = replace(cache.held, whole=True)


def recall(cache: Cache, layers: tuple[int, ...], rows: int) -> Held | None:
    """Return what `cache` holds; None when no token was ever removed from it.

    Args:
        cache: as the caller passed it, before the forward.
        layers: of the stages of the policy that is active; empty when it keeps every token.
        rows: batch size of the call.

    Raises:
        RuntimeUseError: the cache cannot be used under a policy, was filled under another one, or was changed by
            something else than the model's own forward.
    """
    held = cache.held if isinstance(cache, NotedCache) else None
    if layers:
        check_cache(cache)
    total = stored_length(cache, 0)
    if held is None or total == 0:
        lengths = {stored_length(cache, layer) for layer in layers} - {total}
        if total and lengths:
            raise _changed(f"{min(lengths)} positions at a layer in {layers}, {total} at layer 0")
        return None
    if not held.whole:
        raise _changed("a call that did not reach its end")
    if held.layers != layers:
        remedy = "finish a conversation under the policy that it was begun with"
        value = f"K = {_places(layers)}" if layers else "keep-all"
        raise RuntimeUseError(f"this cache was filled with K = {_places(held.layers)}", value=value, remedy=remedy)
    return _checked(cache, held, rows)


def _checked(cache: Cache, held: Held, rows: int) -> Held:
    """Hold a note against what is stored, after following a crop."""
    gone = held.length(held.level(0)) - stored_length(cache, 0)
    if gone > 0:
        held = held.cropped(gone)
    places = (0, *held.layers)
    found = (*(stored_length(cache, layer) for layer in places), _rows(cache))
    expected = (*(held.length(held.level(layer)) for layer in places), rows)
    if found != expected or held.rows != rows:
        raise _changed(f"(positions at layers {places}, rows) {found} instead of {expected}")
    return held


def stored_length(cache: Cache, layer: int) -> int:
    """Return how many tokens went into a layer of the cache, those that a window has dropped included."""
    if layer >= len(cache.layers):
        return 0
    stored: Any = cache.layers[layer]
    return int(stored.get_seq_length())


def _places(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))


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
    """Let the layers from `layer` on, where tokens have left, say how long they would be, had none left.

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
