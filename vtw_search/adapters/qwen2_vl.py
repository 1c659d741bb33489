"""Qwen2-VL and Qwen2.5-VL (Wang et al. 2024, Bai et al. 2025): native resolution, merged patches, M-RoPE.

The three position planes are folded into the rotary embeddings before the first decoder layer; a layer's own
`position_ids` are the text plane alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vtw_search.adapters.base import Adapter
from vtw_search.errors import RuntimeUseError
from vtw_search.tokens import Grid


class Qwen2VLAdapter(Adapter):
    """Images and videos have placeholders of their own."""

    class_name = "Qwen2VLForConditionalGeneration"

    def has_grids(self, model: nn.Module) -> bool:
        """Tell that every call brings its grids."""
        return True

    def grids(self, model: nn.Module, inputs: Mapping[str, Any], tokens: int) -> list[Grid]:
        """Return the merged patches of each image; a prompt with videos too is refused, since their order is not told.

        Raises:
            RuntimeUseError: the call has videos, or no `image_grid_thw`.
        """
        config: Any = model.config
        grids = inputs.get("image_grid_thw")
        if grids is None or inputs.get("video_grid_thw") is not None:
            remedy = "pass image_grid_thw and images alone, or prune with scorer uniform"
            raise RuntimeUseError("down-sampling needs the grids of images", remedy=remedy)
        merge = config.vision_config.spatial_merge_size
        return [Grid(rows // merge, columns // merge) for _, rows, columns in grids.tolist()]


class Qwen2_5_VLAdapter(Qwen2VLAdapter):  # noqa: N801 - the family's own name
    """As Qwen2-VL; the tower's windows do not concern the decoder."""

    class_name = "Qwen2_5_VLForConditionalGeneration"
