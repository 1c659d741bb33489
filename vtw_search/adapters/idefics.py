"""Idefics3 (Laurençon et al. 2024) and SmolVLM: tiles with text markers between them; video frames are images."""

from __future__ import annotations

from vtw_search.adapters.base import IMAGE, Adapter


class Idefics3Adapter(Adapter):
    """Row and column markers of the tiles are text and stay."""

    class_name = "Idefics3ForConditionalGeneration"
    modalities = (IMAGE,)


class SmolVLMAdapter(Idefics3Adapter):
    """As Idefics3."""

    class_name = "SmolVLMForConditionalGeneration"
