"""Llama 4: a tiled ViT with pixel shuffle and an MoE decoder: chunked layers with RoPE, full layers without.

The full layers also scale queries by their position in the given sequence, pads included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Llama4Config, Llama4TextConfig, Llama4VisionConfig

from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

PATCH, START, END, TILE_X, TILE_Y, GLOBAL = 3, 5, 6, 7, 8, 9
TOKENS = 4
TILES = {"small": 1, "large": 3}


def _image_tokens(config: Llama4Config, kind: str) -> list[int]:
    """Return the tiles of one row of two (when large), separated, and the whole image."""
    tile = [PATCH] * TOKENS
    tiles = [*tile, TILE_X, *tile, TILE_Y] if kind == "large" else []
    return [START, *tiles, GLOBAL, *tile, END]


def _features(config: Llama4Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    tiles = sum(TILES[kind] for kind in kinds)
    return {"pixel_values": torch.randn(tiles, 3, 16, 16, generator=generator)}


def _config() -> Llama4Config:
    vision = Llama4VisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=4,
        vision_output_dim=48, projector_input_dim=48, projector_output_dim=48,
    )  # fmt: skip
    text = Llama4TextConfig(
        vocab_size=99, hidden_size=64, intermediate_size=32, intermediate_size_mlp=96, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2,
        interleave_moe_layer_step=2, attention_chunk_size=8, floor_scale=8, pad_token_id=0,
    )  # fmt: skip
    return Llama4Config(
        vision_config=vision, text_config=text, image_token_index=PATCH, boi_token_index=START, eoi_token_index=END
    )


FAMILY = TinyFamily("llama4", _config, _image_tokens, _features, kinds=("small", "large"), model=quiet)
