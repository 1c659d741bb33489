"""What an operator is: a rule that says which tokens stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from vtw_search.operators.budget import Keep
from vtw_search.tokens import Grid, TokenLayout

Site = Literal["vision", "decoder"]
Keeps = Literal["nothing", "share", "any"]


@dataclass(frozen=True)
class Request:
    """What a stage asks of its operator.

    Attributes:
        keep: how many visual tokens stay.
        scores: (B, T) by the stage's scorer, at the tokens at hand.
        grids: shape of each visual block (image, tile or frame), in the order of the visual tokens, row after row.
        options: the operator's, complete.
    """

    keep: Keep | None = None
    scores: torch.Tensor | None = None
    grids: Sequence[Grid] = ()
    options: Mapping[str, Any] | None = None


NOTHING_ASKED = Request()


class Operator(Protocol):
    """One way in which visual tokens leave. None ever adds a token, brings one back or removes text.

    Attributes:
        name: its name in policies.
        scoring_version: raised by hand when its results change; part of every measurement's identity.
        site: where it acts; at `vision` always at the input of decoder layer 0.
        keeps: whether it needs `keep`: not at all, as a share alone, or any of share, count and budget.
        ranks: whether it needs a scorer.
        may_be_followed: whether a later stage can still find visual tokens.
        in_parts: whether a token leaves whatever else is in the prompt, so that a prompt may come in several calls.
        options: its options and their defaults.
    """

    name: str
    scoring_version: int
    site: Site
    keeps: Keeps
    ranks: bool
    may_be_followed: bool
    in_parts: bool
    options: Mapping[str, Any]

    def keep(self, layout: TokenLayout, request: Request = NOTHING_ASKED) -> torch.Tensor:
        """Return (B, T) bool, true at the tokens that stay.

        The runtime asks for the visual tokens alone: text and the last token of a prompt always stay, padding leaves.
        """

    def merge(self, hidden: torch.Tensor, layout: TokenLayout, request: Request) -> torch.Tensor:
        """Return (B, T, D) hidden states, changed only at visual tokens that stay; called before tokens leave."""

    def left(self, visual: int, request: Request = NOTHING_ASKED) -> int | None:
        """Return how many of a row's `visual` tokens stay, or None where only the data tell; scores are not given."""
