"""Muse Glimmer (2026): a tower whose layers see windows, with full attention in every fourth and in the last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from profilers.shapes import TowerShape
from vtw_search.adapters.generic import GenericAdapter


class MuseGlimmerAdapter(GenericAdapter):
    """As any other family, except for what its tower costs."""

    class_name = "MuseGlimmerForConditionalGeneration"

    def tower_shape(self, model: nn.Module) -> TowerShape:
        """Name the layers with windows, whose side is that of the grid of learned positions."""
        config: Any = model.config
        vision = config.vision_config
        windowed = frozenset(number for number, kind in enumerate(vision.layer_types) if kind == "window_attention")
        return replace(super().tower_shape(model), window_side=vision.pos_emb_height, windowed=windowed)
