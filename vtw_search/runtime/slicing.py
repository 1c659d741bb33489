"""Cutting a decoder layer's arguments down to the tokens that stay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch

from vtw_search.tokens import Selection

Result = TypeVar("Result")


class PerObject(Generic[Result]):
    """Results of one function by the very object that they were made of, the last few.

    All layers, or all of one kind, are given the same arguments. The object is kept with its result, so that no other
    can take its place.
    """

    def __init__(self) -> None:
        self._made: deque[tuple[object, Result]] = deque(maxlen=8)

    def of(self, value: Any, make: Callable[[Any], Result]) -> Result:
        """Return `make(value)`, made once as long as the same object is given."""
        for known, result in self._made:
            if known is value:
                return result
        self._made.append((value, make(value)))
        return self._made[-1][1]


def gather_tokens(value: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """Take the tokens `index`, (B, S), of `value` along `dim`.

    Args:
        value: the dimension before the tokens' is the batch, of size B or 1; a tensor without one gets it.
        index: positions per row.
        dim: token dimension, counted from the end.

    Returns:
        As `value`, with B rows of S tokens.
    """
    batch, length = index.shape
    if value.ndim + dim == 0:
        value = value[None]
    rows = value.ndim + dim - 1
    shape = list(value.shape)
    shape[rows] = batch
    shape_of_index = [1] * value.ndim
    shape_of_index[rows], shape_of_index[dim] = batch, length
    target = shape.copy()
    target[dim] = length
    return value.expand(shape).gather(value.ndim + dim, index.to(value.device).view(shape_of_index).expand(target))


def gather_all(value: Any, index: torch.Tensor, length: int, dim: int) -> Any:
    """Gather in every tensor of `value` that has all `length` tokens; one that the model has cut already stays."""
    return map_tensors(
        value, lambda tensor: gather_tokens(tensor, index, dim) if tensor.shape[dim] == length else tensor
    )


def map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Apply `function` to every tensor of nested tuples, lists and dictionaries; everything else stays."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(item, function) for item in value)
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor of nested tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | tuple | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


def crop_mask(
    mask: torch.Tensor | None, queries: torch.Tensor | None, keys: Selection, total: int, query_length: int
) -> torch.Tensor | None:
    """Crop an attention mask to the queries and keys that stay.

    The mask that the model built is cropped and never built anew: windows, chunks and blocks that see each other are
    defined on original positions.

    Args:
        mask: (B or 1, H, Q, W) bool (true: may attend) or additive float, whose columns are the last W positions of the
            sequence; None means that every token sees all that is before it.
        queries: (B, S) rows to take, or None to keep all Q rows.
        keys: columns to take, as positions in the whole sequence, with their fillers.
        total: length of the whole sequence; the queries are its last Q positions.
        query_length: Q.

    Returns:
        (B, H, S, C) of the same kind, or None when every remaining token sees all that is before it.
    """
    if mask is None and keys.filler is None:
        return None
    if mask is None:
        mask = causal_mask(total, query_length, keys.index.device)
    rows = mask if queries is None or mask.shape[2] != query_length else _rows_of(mask, queries)
    columns = keys.index.to(mask.device) - (total - mask.shape[-1])
    hidden = columns < 0 if mask.shape[-1] < total else None
    if keys.filler is not None:
        fillers = keys.filler.to(mask.device)
        hidden = fillers if hidden is None else hidden | fillers
    if hidden is not None:
        columns = columns.clamp_min(0)
    shape = (columns.shape[0], rows.shape[1], rows.shape[2], columns.shape[1])
    cropped = rows.expand(shape[0], -1, -1, -1).gather(3, columns[:, None, None, :].expand(shape))
    return cropped if hidden is None else _hide(cropped, hidden, own=queries is not None)


def _rows_of(mask: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Take the query rows `queries`, (B, S), of a mask (B or 1, H, Q, W)."""
    batch, length = queries.shape
    index = queries.to(mask.device)[:, None, :, None].expand(batch, mask.shape[1], length, mask.shape[3])
    return mask.expand(batch, -1, -1, -1).gather(2, index)


def causal_mask(total: int, query_length: int, device: torch.device) -> torch.Tensor:
    """Return the mask that None stands for: the last `query_length` positions see themselves and what is before."""
    column = torch.arange(total, device=device)
    row = torch.arange(total - query_length, total, device=device)
    return (column[None, :] <= row[:, None])[None, None]


def _hide(mask: torch.Tensor, hidden: torch.Tensor, own: bool) -> torch.Tensor:
    """Hide columns, (B, C), from everybody but, if `own`, themselves: a row without a visible key would be NaN."""
    columns = hidden[:, None, None, :].expand(mask.shape)
    if own:
        length, width = mask.shape[2:]
        diagonal = torch.eye(length, width, dtype=torch.bool, device=mask.device).roll(width - length, dims=1)
        mask = _show(mask, columns & diagonal)
        columns = columns & ~diagonal
    if mask.dtype == torch.bool:
        return mask & ~columns
    return mask.masked_fill(columns, torch.finfo(mask.dtype).min)


def _show(mask: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    return mask | visible if mask.dtype == torch.bool else mask.masked_fill(visible, 0.0)
