"""Cutting a decoder layer's arguments down to the tokens that stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vtw_search.tokens import Selection


def gather_tokens(value: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """Take the tokens `index`, (B, S), of `value` along `dim`; a batch dimension of 1 is expanded to B."""
    batch, length = index.shape
    if value.shape[0] != batch:
        value = value.expand(batch, *value.shape[1:])
    shape = [1] * value.ndim
    shape[0], shape[dim] = batch, length
    target = list(value.shape)
    target[dim] = length
    return value.gather(dim, index.view(shape).expand(target))


def map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Apply `function` to a tensor, or to every tensor of a tuple; None stays None."""
    if isinstance(value, tuple):
        return tuple(map_tensors(item, function) for item in value)
    return value if value is None else function(value)


def crop_mask(
    mask: torch.Tensor | None, queries: torch.Tensor | None, keys: Selection, query_length: int
) -> torch.Tensor | None:
    """Crop an attention mask to the queries and keys that stay.

    Args:
        mask: (B or 1, H, Q, T) bool (true: may attend) or additive float; None means purely causal.
        queries: (B, S) rows to take, or None to keep all Q rows.
        keys: columns to take, as positions in the full key sequence, with their fillers.
        query_length: Q, needed when `mask` is None.

    Returns:
        (B, H, S, C) of the same kind, or None when plain causal attention over the shortened sequence is the same.
    """
    if mask is None and keys.filler is None:
        return None
    if mask is None:
        mask = _causal(query_length, keys)
    rows = mask if queries is None else gather_tokens(mask, queries, dim=2)
    cropped = gather_tokens(rows, keys.index, dim=3)
    return cropped if keys.filler is None else _hide_fillers(cropped, queries, keys)


def _causal(query_length: int, keys: Selection) -> torch.Tensor:
    """Return the mask that None stands for: the last `query_length` positions see themselves and what is before."""
    assert keys.filler is not None
    total = int(keys.index.max()) + 1
    column = torch.arange(total, device=keys.index.device)
    row = torch.arange(total - query_length, total, device=keys.index.device)
    return (column[None, :] <= row[:, None])[None, None]


def _hide_fillers(mask: torch.Tensor, queries: torch.Tensor | None, keys: Selection) -> torch.Tensor:
    """Hide filler columns from everybody but themselves: a row without any visible key would be NaN."""
    assert keys.filler is not None
    hidden = keys.filler[:, None, None, :].expand(mask.shape)
    if queries is not None:
        length, width = queries.shape[1], keys.length
        own = torch.eye(length, width, dtype=torch.bool, device=mask.device).roll(width - length, dims=1)
        mask = _show(mask, hidden & own)
        hidden = hidden & ~own
    if mask.dtype == torch.bool:
        return mask & ~hidden
    return mask.masked_fill(hidden, torch.finfo(mask.dtype).min)


def _show(mask: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    return mask | visible if mask.dtype == torch.bool else mask.masked_fill(visible, 0.0)
