"""Aya Vision: a SigLIP tower on tiles, 2x2 pixel shuffle, and a Cohere2 decoder of sliding and position-free layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AyaVisionConfig, Cohere2Config, SiglipVisionConfig

from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END, GLOBAL, FIRST_TILE = 3, 5, 6, 7, 8
SIDE, TOKENS = 24, 9
TILES = {"small": 1, "large": 3}


def vision_config() -> SiglipVisionConfig:
    """Return a tower of 6x6 patches, shuffled to 3x3."""
    return SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE,
        patch_size=4, vision_use_head=False,
    )  # fmt: skip


def text_config() -> Cohere2Config:
    """Return two periods of three sliding layers and one full layer."""
    return Cohere2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2,
        sliding_window=8, vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def features(config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return the tiles of all images."""
    return {"pixel_values": torch.randn(sum(TILES[kind] for kind in kinds), 3, SIDE, SIDE, generator=generator)}


def _image_tokens(config: AyaVisionConfig, kind: str) -> list[int]:
    tiles = [token for tile in range(TILES[kind] - 1) for token in [FIRST_TILE + tile, *[IMAGE] * TOKENS]]
    return [START, *tiles, GLOBAL, *[IMAGE] * TOKENS, END]


def _config() -> AyaVisionConfig:
    return AyaVisionConfig(vision_config=vision_config(), text_config=text_config(), image_token_index=IMAGE)


FAMILY = TinyFamily("aya_vision", _config, _image_tokens, features, kinds=("small", "large"), model=quiet)
