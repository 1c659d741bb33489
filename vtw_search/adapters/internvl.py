"""InternVL (Chen et al. 2024): tiles of one size, merged patches; video frames are images."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE, VisionTower
from vtw_search.tokens import Grid


class InternVLAdapter(Adapter):
    """Images and video frames share a placeholder and an input."""

    class_name = "InternVLForConditionalGeneration"
    modalities = (IMAGE,)

    def block_grid(self, model: nn.Module) -> Grid:
        """Return the merged patches of a tile."""
        patches, merge = _patches(model), _merge(model)
        return Grid(patches.rows // merge, patches.columns // merge)

    def vision_tower(self, model: nn.Module) -> VisionTower | None:
        """Return the tower; None where the projector takes the class token, or features of several layers."""
        config: Any = model.config
        vision, layer = config.vision_config, config.vision_feature_layer
        if config.vision_feature_select_strategy != "default" or not isinstance(layer, int):
            return None
        tower = model.get_submodule("model.vision_tower")
        return VisionTower(tower, vision.num_hidden_layers, 1, layer, _patches(model), _merge(model))


def _patches(model: nn.Module) -> Grid:
    config: Any = model.config
    sizes = zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
    return Grid(*(image // patch for image, patch in sizes))


def _merge(model: nn.Module) -> int:
    config: Any = model.config
    ratio: float = config.downsample_ratio
    return round(1 / ratio)
