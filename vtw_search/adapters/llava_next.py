"""LLaVA-NeXT (Liu et al. 2024) and LLaVA-NeXT-Video: an image is tiled, so that its size decides its tokens."""

from __future__ import annotations

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE
from vtw_search.adapters.tiles import TiledImages


class LlavaNextAdapter(TiledImages, Adapter):
    """Base view, then the tiles with one learned token at the end of every row, all under one placeholder."""

    class_name = "LlavaNextForConditionalGeneration"
    modalities = (IMAGE,)


class LlavaNextVideoAdapter(TiledImages, Adapter):
    """As LLaVA-NeXT, and pooled frames under a placeholder of their own."""

    class_name = "LlavaNextVideoForConditionalGeneration"
