"""Granite 4 Vision: tiled images that come in through deepstack alone, before decoder layers that the config names."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.generic import GenericAdapter
from vtw_search.adapters.tiles import TiledImages


class Granite4VisionAdapter(TiledImages, GenericAdapter):
    """Features are added at the input of the named layers, before a withdrawal there takes place."""

    def first_layer(self, model: nn.Module) -> int:
        """Return the last layer that receives features."""
        return max(1, *_receiving(model))

    def entry_layer(self, model: nn.Module) -> int:
        """Return the first layer that receives features; what enters layer 0 is text and zeros."""
        return min(_receiving(model))


def _receiving(model: nn.Module) -> list[int]:
    config: Any = model.config
    return [layer for _, layer in config.deepstack_layer_map or ()] + list(config.spatial_target_layers or ())
