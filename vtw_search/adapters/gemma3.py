"""Gemma 3 (2025): sliding and full layers in turn; the tokens of an image attend to each other in both directions."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from vtw_search.adapters.base import IMAGE, Adapter
from vtw_search.tokens import Grid


class Gemma3Adapter(Adapter):
    """Which tokens see each other is in the masks of the layers, at full length, and is cut with them."""

    class_name = "Gemma3ForConditionalGeneration"
    modalities = (IMAGE,)

    def block_grid(self, model: nn.Module) -> Grid:
        """Return the pooled patches of an image or crop."""
        config: Any = model.config
        side = math.isqrt(config.mm_tokens_per_image)
        return Grid(side, side)
