"""Pruning: the visual tokens with the highest scores stay, in their order; ties go to the earlier token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vtw_search.operators.base import NOTHING_ASKED, Keeps, Request, Site
from vtw_search.operators.budget import budget_counts, keep_count, keep_counts
from vtw_search.tokens import TokenLayout


class Prune:
    """Inside the decoder (FastV, HiMAP, PyramidDrop)."""

    name = "prune"
    scoring_version = 1
    site: Site = "decoder"
    keeps: Keeps = "any"
    ranks = True
    may_be_followed = True
    in_parts = False
    options: Mapping[str, Any] = {}

    def keep(self, layout: TokenLayout, request: Request = NOTHING_ASKED) -> torch.Tensor:
        """Keep the text, and of each row's visual tokens the best."""
        keep, scores = request.keep, request.scores
        assert scores is not None, "checked when the policy was"
        assert keep is not None, "checked when the policy was"
        if isinstance(keep, str):
            counts = budget_counts(keep, scores, layout.visual)
        else:
            counts = keep_counts(keep, layout.visual.sum(dim=1))
        order = scores.masked_fill(~layout.visual, -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank = order.argsort(dim=1)
        return ~(layout.visual | layout.padding) | (layout.visual & (rank < counts[:, None]))

    def merge(self, hidden: torch.Tensor, layout: TokenLayout, request: Request) -> torch.Tensor:
        """Return `hidden` as it is."""
        return hidden

    def left(self, visual: int, request: Request = NOTHING_ASKED) -> int | None:
        """Return the count by the rounding rule, None for a budget that the scores decide."""
        assert request.keep is not None, "checked when the policy was"
        return None if isinstance(request.keep, str) else keep_count(request.keep, visual)


class Select(Prune):
    """Before the decoder: what leaves is never seen by it (VTC-CLS, FoPru)."""

    name = "select"
    scoring_version = 2
    site: Site = "vision"
