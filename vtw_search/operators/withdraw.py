"""Withdrawal: every visual token leaves (Lin et al., "Boosting Multimodal Large Language Models with Visual Tokens
Withdrawal for Rapid Inference", AAAI 2025, arXiv 2405.05803)."""

from __future__ import annotations

import torch

from vtw_search.tokens import TokenLayout


class Withdraw:
    """All visual tokens leave, and nothing can follow."""

    name = "withdraw"
    scoring_version = 1
    may_be_followed = False

    def keep(self, layout: TokenLayout) -> torch.Tensor:
        """Keep what is neither visual nor padding."""
        return ~(layout.visual | layout.padding)
