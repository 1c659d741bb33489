"""Gemma 3 (2025): sliding and full layers in turn; the tokens of an image attend to each other in both directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from profilers.shapes import Projection, ProjectorShape
from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE, VisionTower
from vtw_search.adapters.patches import patch_grid, siglip_tower
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

    def vision_tower(self, model: nn.Module) -> VisionTower:
        """Return the tower, whose patches are pooled in squares."""
        return siglip_tower(model, "vision_tower", patch_grid(model).rows // self.block_grid(model).rows)

    def projector_shape(self, model: nn.Module) -> ProjectorShape:
        """Return the one matrix that patches meet after they were pooled."""
        return gemma3_projector_shape(self.projector_parts(model), model)


def gemma3_projector_shape(parts: Mapping[str, nn.Module], model: nn.Module) -> ProjectorShape:
    """Return the shape of Gemma 3's projector: a plain parameter, not a linear layer."""
    config: Any = model.config
    ((name, part),) = parts.items()
    inputs, outputs = part.get_parameter("mm_input_projection_weight").shape
    side = config.vision_config.image_size // config.vision_config.patch_size
    merge = side**2 // config.mm_tokens_per_image
    return ProjectorShape((Projection(name, inputs, outputs),), merge, modules=(name,))
