"""What a call of the model asks for, and what of it cannot be had where tokens leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vtw_search.errors import RuntimeUseError


def shape_of(kwargs: Mapping[str, Any]) -> tuple[int, int]:
    """Return (B, T) of the new tokens of a call."""
    given = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
    return int(given.shape[0]), int(given.shape[1])


def check_mark(visual: Any) -> None:
    """Raise RuntimeUseError unless a mark of visual tokens is (B, T) bool, or None."""
    if visual is None or (isinstance(visual, torch.Tensor) and visual.dtype == torch.bool and visual.ndim == 2):
        return
    tensor = isinstance(visual, torch.Tensor)
    value = f"{tuple(visual.shape)} {visual.dtype}" if tensor else type(visual).__name__
    raise RuntimeUseError("visual tokens are marked by a (B, T) bool tensor", value=value, remedy="pass a mask")


def check_mark_fits(visual: torch.Tensor, kwargs: Mapping[str, Any]) -> None:
    """Raise RuntimeUseError unless a mark has the shape of the call's new tokens."""
    if visual.shape != shape_of(kwargs):
        remedy = "mark the tokens of that very call, after rows were repeated for beams"
        rule = f"a mark of visual tokens must have the shape of its call, {shape_of(kwargs)}"
        raise RuntimeUseError(rule, value=tuple(visual.shape), remedy=remedy)


def check_call(kwargs: Mapping[str, Any], leave: bool) -> None:
    """Raise RuntimeUseError when a call asks for what cannot be had from a shortened sequence.

    Args:
        kwargs: arguments of the call.
        leave: whether some of the new tokens leave.
    """
    if kwargs.get("labels") is not None:
        remedy = "leave out labels, or compute the loss from the logits of the tokens that stay"
        raise RuntimeUseError("under a policy a call returns no loss", remedy=remedy)
    if leave and isinstance(kwargs.get("logits_to_keep"), torch.Tensor):
        remedy = "pass how many of the last positions, as an integer"
        value = tuple(kwargs["logits_to_keep"].shape)
        raise RuntimeUseError("logits_to_keep cannot name positions where tokens leave", value=value, remedy=remedy)
