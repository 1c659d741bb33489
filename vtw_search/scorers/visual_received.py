"""Attention that each visual token receives from the visual tokens (HiMAP's phi_dp, arXiv 2503.13108).

As published it is a sum over queries, so that under a causal mask an early token is seen by more queries and scores
higher for that alone; `normalise` divides by the number of visual queries that can see the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vtw_search.scorers.base import PlainScorer, Reads, Shape, View

_CHUNK = 256


class VisualReceived(PlainScorer):
    """Attention of layer K-1, mean over heads, sum over the visual queries."""

    name = "visual_received"
    reads: Reads = "attention"
    options: Mapping[str, Any] = {"normalise": False}

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return the attention that each token receives; rows are taken in chunks, since all at once are T x T."""
        assert view.attention is not None
        seen = view.visual.any(dim=0).nonzero()[:, 0]
        total = torch.zeros(view.visual.shape, device=view.visual.device)
        queries = torch.zeros_like(total)
        for columns in torch.split(seen, _CHUNK):
            index = columns.expand(len(total), -1)
            weight = view.visual.gather(1, index).float()
            total += torch.einsum("br,brt->bt", weight, view.attention.rows(index))
            if options["normalise"]:
                queries += torch.einsum("br,brt->bt", weight, view.attention.visible(index).float())
        return total / queries.clamp_min(1) if options["normalise"] else total

    def macs(self, shape: Shape, options: Mapping[str, Any]) -> int:
        """Return visual queries x keys x width."""
        return shape.visual * shape.tokens * shape.width
