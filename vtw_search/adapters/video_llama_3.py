"""VideoLLaMA 3 (2025): native resolution; every image and video says how many of its patches become one token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from profilers.shapes import Grid
from vtw_search.adapters.generic import GenericAdapter


class VideoLlama3Adapter(GenericAdapter):
    """As any other family, except for how its patches are merged before the projector."""

    class_name = "VideoLlama3ForConditionalGeneration"

    def projector_grids(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Grid]:
        """Return the merged grids: it is the tower that merges them."""
        sides: list[int] = []
        for name in ("image", "video"):
            if (sizes := inputs.get(f"{name}_grid_thw")) is not None:
                sides += inputs[f"{name}_merge_sizes"].repeat_interleave(sizes[:, 0]).tolist()
        grids = self.image_grids(model, inputs)
        return [(rows // side, columns // side) for (rows, columns), side in zip(grids, sides, strict=True)]
