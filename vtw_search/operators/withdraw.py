"""Withdrawal: every visual token leaves (Lin et al., "Boosting Multimodal Large Language Models with Visual Tokens
Withdrawal for Rapid Inference", AAAI 2025, arXiv 2405.05803)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vtw_search.operators.base import NOTHING_ASKED, Keeps, Request, Site
from vtw_search.tokens import TokenLayout


class Withdraw:
    """All visual tokens leave, and nothing can follow."""

    name = "withdraw"
    scoring_version = 1
    site: Site = "decoder"
    keeps: Keeps = "nothing"
    ranks = False
    may_be_followed = False
    in_parts = True
    options: Mapping[str, Any] = {}

    def keep(self, layout: TokenLayout, request: Request = NOTHING_ASKED) -> torch.Tensor:
        """Keep what is neither visual nor padding."""
        return ~(layout.visual | layout.padding)

    def merge(self, hidden: torch.Tensor, layout: TokenLayout, request: Request) -> torch.Tensor:
        """Return `hidden` as it is."""
        return hidden

    def left(self, visual: int, request: Request = NOTHING_ASKED) -> int:
        """Return 0."""
        return 0
