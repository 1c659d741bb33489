"""What an operator is: a rule that says which tokens stay."""

from __future__ import annotations

from typing import Protocol

import torch

from vtw_search.tokens import TokenLayout


class Operator(Protocol):
    """One way in which visual tokens leave.

    Attributes:
        name: its name in policies.
        scoring_version: raised by hand when its results change; part of every measurement's identity.
        may_be_followed: whether a later stage can still find visual tokens.
    """

    name: str
    scoring_version: int
    may_be_followed: bool

    def keep(self, layout: TokenLayout) -> torch.Tensor:
        """Return (B, T) bool, true at the tokens that stay. Text tokens always stay; padding may leave."""
