"""Granite 4 Vision: the image comes in through deepstack alone, before decoder layers that the config names."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.generic import GenericAdapter


class Granite4VisionAdapter(GenericAdapter):
    """Features are added at the input of the named layers, before a withdrawal there takes place."""

    def first_layer(self, model: nn.Module) -> int:
        """Return the last layer that receives features."""
        config: Any = model.config
        layers: list[int] = [layer for _, layer in config.deepstack_layer_map or ()] + list(
            config.spatial_target_layers or ()
        )
        return max(1, *layers)
