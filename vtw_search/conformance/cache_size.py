"""How large a key-value cache may be after a prefill under a policy: entries, bytes, and what is still in memory."""

from __future__ import annotations

from typing import Any

import torch

from vtw_search.adapters import LayerCache, layer_caches
from vtw_search.conformance.bench import Bench, ContractError
from vtw_search.conformance.probes import Probe


def check_cache_size(bench: Bench, probe: Probe, layer: int, cache: Any) -> None:
    """Hold the cache of `probe` against the closed form: full below K = `layer`, short from K on, at most a window.

    Raises:
        ContractError: a layer holds another number of tokens, all together hold another number of bytes, or what was
            released is still in memory.
    """
    rows, full = probe.inputs["input_ids"].shape
    short, bytes_per_token = bench.kept(probe).length, rows * bench.model.dtype.itemsize
    expected_bytes = found_bytes = 0
    for number, (shape, stored) in enumerate(zip(layer_caches(bench.model.config), cache.layers, strict=True)):
        tokens = _tokens(shape, full if number < layer else short)
        held = _held(stored)
        if any(tensor.shape[-2] != tokens for tensor in held):
            raise ContractError(f"layer {number} holds {held[0].shape[-2]} entries at K = {layer}, not {tokens}")
        if shape.window is None and any(tensor.untyped_storage().nbytes() != tensor.nbytes for tensor in held):
            raise ContractError(f"layer {number} keeps released entries in memory at K = {layer}")
        expected_bytes += bytes_per_token * tokens * shape.width
        found_bytes += sum(tensor.nbytes for tensor in held)
    if found_bytes != expected_bytes:
        raise ContractError(f"the cache holds {found_bytes} bytes at K = {layer}, not {expected_bytes}")


def _tokens(shape: LayerCache, tokens: int) -> int:
    return tokens if shape.window is None else min(tokens, shape.window - 1)


def _held(stored: Any) -> list[torch.Tensor]:
    """Return keys, values and, where a layer has them, index keys; nothing of a layer that reads another one's."""
    found = (getattr(stored, name, None) for name in ("keys", "values", "indexer_keys"))
    return [tensor for tensor in found if tensor is not None]
