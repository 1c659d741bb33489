"""LLaVA-OneVision (Li et al. 2024): tiled images, and videos under a placeholder of their own."""

from __future__ import annotations

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.tiles import TiledImages


class LlavaOnevisionAdapter(TiledImages, Adapter):
    """An image alone in its row is tiled; images that share a row are one view each."""

    class_name = "LlavaOnevisionForConditionalGeneration"
