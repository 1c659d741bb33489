"""InternVL (Chen et al. 2024): tiles of one size, merged patches; video frames are images."""

from __future__ import annotations

from vtw_search.adapters.base import IMAGE, Adapter


class InternVLAdapter(Adapter):
    """Images and video frames share a placeholder and an input."""

    class_name = "InternVLForConditionalGeneration"
    modalities = (IMAGE,)
