"""Qwen2-VL and Qwen2.5-VL (Wang et al. 2024, Bai et al. 2025): native resolution, merged patches, M-RoPE.

The three position planes are folded into the rotary embeddings before the first decoder layer; a layer's own
`position_ids` are the text plane alone.
"""

from __future__ import annotations

from vtw_search.adapters.base import Adapter


class Qwen2VLAdapter(Adapter):
    """Images and videos have placeholders of their own."""

    class_name = "Qwen2VLForConditionalGeneration"


class Qwen2_5_VLAdapter(Adapter):  # noqa: N801 - the family's own name
    """As Qwen2-VL; the tower's windows do not concern the decoder."""

    class_name = "Qwen2_5_VLForConditionalGeneration"
