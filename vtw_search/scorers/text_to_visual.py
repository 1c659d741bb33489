"""Attention that text pays to each visual token, in the decoder layer before the stage.

FastV (Chen et al., ECCV 2024, arXiv 2403.06764) takes the last prompt token's row; HiMAP (arXiv 2503.13108, CVPR 2025)
the sum over the instruction, phi_sh. Both from the attention of layer K-1, mean over heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vtw_search.scorers.base import PlainScorer, Reads, Shape, View


class TextToVisual(PlainScorer):
    """`queries`: `last` prompt token, or the mean over the `instruction`, the text behind the last visual token."""

    name = "text_to_visual"
    reads: Reads = "attention"
    options: Mapping[str, Any] = {"queries": ("last", "instruction")}

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return the attention on each token."""
        assert view.attention is not None
        if options["queries"] == "last":
            return view.attention.rows(view.last)[:, 0]
        instruction = view.instruction
        first = int(instruction.int().argmax(dim=1).min())
        weight = instruction[:, first:].float()
        columns = torch.arange(first, instruction.shape[1], device=weight.device).expand(weight.shape)
        rows = view.attention.rows(columns)
        return torch.einsum("br,brt->bt", weight, rows) / weight.sum(dim=1, keepdim=True).clamp_min(1)

    def macs(self, shape: Shape, options: Mapping[str, Any]) -> int:
        """Return queries x keys x width."""
        queries = 1 if options["queries"] == "last" else shape.instruction
        return queries * shape.tokens * shape.width
