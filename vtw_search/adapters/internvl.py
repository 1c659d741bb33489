"""InternVL (Chen et al. 2024): tiles of one size, merged patches; video frames are images."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.base import IMAGE, Adapter
from vtw_search.tokens import Grid


class InternVLAdapter(Adapter):
    """Images and video frames share a placeholder and an input."""

    class_name = "InternVLForConditionalGeneration"
    modalities = (IMAGE,)

    def block_grid(self, model: nn.Module) -> Grid:
        """Return the merged patches of a tile."""
        config: Any = model.config
        sizes = zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
        return Grid(*(int(image // patch * config.downsample_ratio) for image, patch in sizes))
