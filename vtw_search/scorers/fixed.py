"""Scorers that look at nothing but places: the baselines that every other one has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vtw_search.scorers.base import PlainScorer, Reads, View


class Random(PlainScorer):
    """A random order of the visual tokens' places, the same in every row, so that neighbours do not matter."""

    name = "random"
    reads: Reads = "nothing"
    options: Mapping[str, Any] = {"seed": 0}

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return the i-th random number for the i-th visual token; a token keeps its number in later stages."""
        generator = torch.Generator().manual_seed(options["seed"])
        # Drawn in blocks of fixed size: how many there are must not change the numbers of the first ones.
        longest = int(view.ordinal.max()) + 1
        blocks = [torch.rand(1024, generator=generator) for _ in range(-(-longest // 1024))]
        table = torch.cat(blocks).to(view.ordinal.device)
        return table[view.ordinal.clamp_min(0)]


class Uniform(PlainScorer):
    """Evenly spaced places among the visual tokens that are left: the i-th of k is number floor((i + 1/2) n / k)."""

    name = "uniform"
    reads: Reads = "nothing"

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return 1 at the chosen places and 0 elsewhere."""
        assert view.wanted is not None
        place = view.visual.long().cumsum(dim=1) - 1
        count = view.visual.sum(dim=1, keepdim=True).clamp_min(1)
        wanted = view.wanted[:, None].to(place)
        # Place p is chosen if some i has floor((2 i + 1) n / 2 k) = p.
        i = torch.div(2 * wanted * (place + 1) - 1 + count, 2 * count, rounding_mode="floor") - 1
        chosen = torch.div((2 * i + 1) * count, 2 * wanted.clamp_min(1), rounding_mode="floor") == place
        return (chosen & (i >= 0) & (i < wanted)).float()
