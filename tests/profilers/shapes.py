"""Shape records written by hand from published configurations, for tests of formulas."""

from __future__ import annotations

from profilers.shapes import AttentionShape, FeedForwardShape, LayerShape, ModelShape, Projection


def llama_layer(
    hidden: int, heads: int, key_heads: int, intermediate: int, *, width: int | None = None, window: int | None = None
) -> LayerShape:
    """Return a layer of Llama's kind."""
    width = width or hidden // heads
    projections = (
        Projection("q_proj", hidden, heads * width),
        Projection("k_proj", hidden, key_heads * width),
        Projection("v_proj", hidden, key_heads * width),
        Projection("o_proj", heads * width, hidden),
    )
    attention = AttentionShape(heads, key_heads, width, width, projections, window, cache_width=2 * key_heads * width)
    return LayerShape(hidden, attention, (FeedForwardShape(hidden, intermediate, gated=True),))


LLAVA_7B = ModelShape((llama_layer(4096, 32, 32, 11008),) * 32, vocabulary=32064)
LLAVA_13B = ModelShape((llama_layer(5120, 40, 40, 13824),) * 40, vocabulary=32064)
