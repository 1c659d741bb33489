"""LLaVA-NeXT (Liu et al. 2024) and LLaVA-NeXT-Video: an image is tiled, so that its size decides its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from profilers.shapes import Grid
from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE
from vtw_search.adapters.tiles import TiledImages
from vtw_search.adapters.towers import frame_count


class LlavaNextAdapter(TiledImages, Adapter):
    """Base view, then the tiles with one learned token at the end of every row, all under one placeholder."""

    class_name = "LlavaNextForConditionalGeneration"
    modalities = (IMAGE,)


class LlavaNextVideoAdapter(TiledImages, Adapter):
    """As LLaVA-NeXT, and pooled frames under a placeholder of their own."""

    class_name = "LlavaNextVideoForConditionalGeneration"

    def projector_grids(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Grid]:
        """Return the grids of images and tiles, and those of the frames as they are pooled."""
        config: Any = model.config
        grids, stride = self.image_grids(model, inputs), config.spatial_pool_stride
        images = len(grids) - frame_count(inputs)
        return [*grids[:images], *((rows // stride, columns // stride) for rows, columns in grids[images:])]
