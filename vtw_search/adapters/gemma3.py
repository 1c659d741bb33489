"""Gemma 3 (2025): sliding and full layers in turn; the tokens of an image attend to each other in both directions."""

from __future__ import annotations

from vtw_search.adapters.base import IMAGE, Adapter


class Gemma3Adapter(Adapter):
    """Which tokens see each other is in the masks of the layers, at full length, and is cut with them."""

    class_name = "Gemma3ForConditionalGeneration"
    modalities = (IMAGE,)
