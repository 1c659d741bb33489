"""Granite 4 Vision: a tiled CLIP tower, deepstack and spatial features into many layers of a Granite decoder.

The placeholders' embeddings are zero: all they get comes from deepstack.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Blip2QFormerConfig, CLIPVisionConfig, Granite4VisionConfig, Granite4VisionTextConfig

from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE = 3
SIDE = 16
SIZES = {"small": (16, 32), "large": (32, 32)}


def _tiles(kind: str) -> int:
    height, width = SIZES[kind]
    return 1 + (height // SIDE) * (width // SIDE)


def _image_tokens(config: Granite4VisionConfig, kind: str) -> list[int]:
    """Return four placeholders for every tile, the whole image included, and one for the end of every row."""
    return [IMAGE] * (4 * _tiles(kind) + SIZES[kind][0] // (SIDE // 2))


def _features(config: Granite4VisionConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return tiles, padded with empty ones to the most of the batch."""
    pixels = torch.zeros(len(kinds), max(map(_tiles, kinds)), 3, SIDE, SIDE)
    for image, kind in zip(pixels, kinds, strict=True):
        image[: _tiles(kind)] = torch.randn(_tiles(kind), 3, SIDE, SIDE, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([SIZES[kind] for kind in kinds])}


def _config() -> Granite4VisionConfig:
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=SIDE, patch_size=4
    )
    text = Granite4VisionTextConfig(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, embedding_multiplier=2.0, logits_scaling=2.0, residual_multiplier=0.5,
        attention_multiplier=0.2,
    )  # fmt: skip
    queries = Blip2QFormerConfig(
        num_hidden_layers=1, intermediate_size=96, cross_attention_frequency=1, use_qformer_text_input=False
    )
    return Granite4VisionConfig(
        vision_config=vision, text_config=text, qformer_config=queries, image_token_index=IMAGE,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]], image_seq_length=4, downsample_rate="1/2",
        deepstack_layer_map=[[-1, 0], [-2, 1], [-3, 2]], spatial_target_layers=[3, 4, 5, 6],
    )  # fmt: skip


FAMILY = TinyFamily("granite4_vision", _config, _image_tokens, _features, kinds=("small", "large"), model=quiet)
