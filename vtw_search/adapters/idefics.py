"""Idefics3 (Laurençon et al. 2024) and SmolVLM: tiles with text markers between them; video frames are images."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE, VisionTower
from vtw_search.adapters.patches import siglip_tower
from vtw_search.tokens import Grid


class Idefics3Adapter(Adapter):
    """Row and column markers of the tiles are text and stay."""

    class_name = "Idefics3ForConditionalGeneration"
    modalities = (IMAGE,)

    def block_grid(self, model: nn.Module) -> Grid:
        """Return the merged patches of a tile."""
        config: Any = model.config
        side = config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor
        return Grid(side, side)

    def vision_tower(self, model: nn.Module) -> VisionTower:
        """Return the tower, whose patches are merged in squares."""
        config: Any = model.config
        return siglip_tower(model, "vision_model", config.scale_factor)


class SmolVLMAdapter(Idefics3Adapter):
    """As Idefics3."""

    class_name = "SmolVLMForConditionalGeneration"
