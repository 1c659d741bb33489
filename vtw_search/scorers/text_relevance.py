"""Similarity of each visual token to the question, in the hidden states at the stage itself.

The second step of "Sparsity Meets Similarity" (arXiv 2409.01162) prunes by relevance to the text inside the decoder;
its measure is not public, so that this is cosine similarity to the mean instruction token. No attention is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from vtw_search.scorers.base import PlainScorer, Reads, Shape, View


class TextRelevance(PlainScorer):
    """Cosine similarity of hidden states to the mean of the instruction's."""

    name = "text_relevance"
    reads: Reads = "hidden"

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return the similarity, in float32."""
        hidden = view.hidden.float()
        weight = view.instruction.float()
        mean = torch.einsum("bt,btd->bd", weight, hidden) / weight.sum(dim=1, keepdim=True).clamp_min(1)
        return functional.cosine_similarity(hidden, mean[:, None], dim=-1)

    def macs(self, shape: Shape, options: Mapping[str, Any]) -> int:
        """Return one dot product per visual token."""
        return shape.visual * shape.width
