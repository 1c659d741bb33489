"""Reading attention while a module runs, whatever the family and the attention implementation.

Under sdpa the queries and keys of torch's fused call are noted, after rotary embedding, normalisation and whatever else
a family does to them; under eager, the logits that its softmax is given. Only the rows that a scorer asks for are
computed from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vtw_search.errors import RuntimeUseError


@dataclass(frozen=True)
class Fused:
    """One call of scaled_dot_product_attention: queries (B, H, Q, D), keys (B, H or fewer, C, D), mask, scale."""

    queries: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor | None
    causal: bool
    scale: float

    @property
    def queries_given(self) -> int:
        """How many queries the call had."""
        return self.queries.shape[2]

    def logits(self, index: torch.Tensor) -> torch.Tensor:
        """Return (B, H, R, C) masked logits of the query columns `index`, (B, R), in float32."""
        queries = _take(self.queries, index).float()
        groups = self.queries.shape[1] // self.keys.shape[1]
        keys = self.keys.float().repeat_interleave(groups, dim=1) if groups > 1 else self.keys.float()
        logits = queries @ keys.transpose(-1, -2) * self.scale
        hidden = self._hidden(index)
        if hidden is not None:
            return logits.masked_fill(hidden, -torch.inf)
        if self.mask is not None:
            logits = logits + _take(self.mask.expand(len(index), -1, -1, -1), index)
        return logits

    def _hidden(self, index: torch.Tensor) -> torch.Tensor | None:
        if self.mask is not None:
            boolean = self.mask.dtype == torch.bool
            return ~_take(self.mask.expand(len(index), -1, -1, -1), index) if boolean else None
        if not self.causal:
            return None
        return (torch.arange(self.keys.shape[2], device=index.device) > index[:, :, None])[:, None]


@dataclass(frozen=True)
class Explicit:
    """The logits that an eager softmax was given, (B, H, Q, C), mask included."""

    values: torch.Tensor

    @property
    def queries_given(self) -> int:
        """How many queries the call had."""
        return self.values.shape[2]

    def logits(self, index: torch.Tensor) -> torch.Tensor:
        """Return (B, H, R, C) masked logits of the query columns `index`, (B, R), in float32."""
        return _take(self.values, index).float()


Call = Fused | Explicit


class AttentionProbe(TorchFunctionMode):
    """While active, hands every attention call to `note`, and nothing else changes."""

    def __init__(self, note: Callable[[Call], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `function`, after noting it if it is an attention."""
        given = kwargs or {}
        if function is functional.scaled_dot_product_attention:
            self.note(_fused(*args, **given))
        elif function is functional.softmax and args[0].ndim == 4:
            self.note(Explicit(args[0]))
        return function(*args, **given)


class LayerAttention:
    """Attention of one decoder layer's call among its last `tokens` tokens, for a range of the call's rows."""

    def __init__(self, calls: Sequence[Call], tokens: int, rows: slice = slice(None)) -> None:
        """Take the one call that the layer made.

        Raises:
            RuntimeUseError: it made none, or several, so that its attention cannot be read.
        """
        if len(calls) != 1:
            remedy = "use a scorer that reads no attention, such as text_relevance or uniform"
            raise RuntimeUseError("a layer must compute one attention to be read", value=len(calls), remedy=remedy)
        self.call, self.tokens, self.part = calls[0], tokens, rows

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Return (B, R, T) attention probabilities, mean over heads, of the query columns `index`, (B, R)."""
        logits = self._logits(index)
        # A padding token may see nothing at all; its row is zero, not NaN.
        blind = (logits == -torch.inf).all(dim=-1, keepdim=True)
        return logits.softmax(dim=-1).masked_fill(blind, 0.0).mean(dim=1)[..., -self.tokens :]

    def visible(self, index: torch.Tensor) -> torch.Tensor:
        """Return (B, R, T) bool, true where the query may see the key."""
        logits = self._logits(index)
        return (logits > torch.finfo(torch.float32).min / 2).any(dim=1)[..., -self.tokens :]

    def _logits(self, index: torch.Tensor) -> torch.Tensor:
        call = self.call if self.part == slice(None) else _rows_of(self.call, self.part)
        return call.logits(index + call.queries_given - self.tokens)


def _rows_of(call: Call, part: slice) -> Call:
    if isinstance(call, Explicit):
        return Explicit(call.values[part])
    mask = call.mask if call.mask is None or len(call.mask) == 1 else call.mask[part]
    return Fused(call.queries[part], call.keys[part], mask, call.causal, call.scale)


def _fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Fused:  # fmt: skip
    return Fused(query, key, attn_mask, is_causal, query.shape[-1] ** -0.5 if scale is None else scale)


def _take(value: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Take the rows `index`, (B, R), of dimension 2 of (B, H, Q, C)."""
    wide = index[:, None, :, None].expand(-1, value.shape[1], -1, value.shape[3])
    return value.gather(2, wide.to(value.device))
