"""Images that are cut into tiles, as many as their size asks for (any resolution: Liu et al. 2024, LLaVA-NeXT)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from profilers.shapes import Grid
from vtw_search.adapters.model_shape import ShapeQuestions


class TiledImages(ShapeQuestions):
    """The processor pads the images of a call with empty tiles to equally many; the model cuts them off unseen."""

    def image_grids(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Grid]:
        """Return the patch grid of every whole image and tile that the tower is given, and of every frame."""
        padded = inputs.get("pixel_values")
        if padded is None or padded.ndim == 4:  # already one list of pictures
            return super().image_grids(model, inputs)
        counts = _pictures(model.config, inputs)
        pictures = [tiles[:count] for tiles, count in zip(padded, counts, strict=True)]
        return super().image_grids(model, {**inputs, "pixel_values": torch.cat(pictures)})


def _pictures(config: Any, inputs: Mapping[str, Any]) -> list[int]:
    """Return how many pictures each image becomes: itself and its tiles; itself alone where a row has several.

    Only LLaVA-OneVision says how many images its rows have; in the other families every image is tiled.
    """
    sizes, per_row = inputs["image_sizes"].tolist(), inputs.get("batch_num_images")
    tiled = [True] * len(sizes) if per_row is None else [count == 1 for count in per_row.tolist() for _ in range(count)]
    return [1 + _tiles(config, size) if cut else 1 for size, cut in zip(sizes, tiled, strict=True)]


def _tiles(config: Any, size: tuple[int, int]) -> int:
    # Deployment, which counts nothing, does not need what this module of transformers reads pictures with.
    from transformers.image_processing_utils import select_best_resolution

    sides, tile = select_best_resolution(size, config.image_grid_pinpoints), config.vision_config.image_size
    return math.prod(-(-side // tile) for side in sides)
