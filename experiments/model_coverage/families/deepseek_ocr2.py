"""DeepSeek-OCR 2: SAM and a Qwen2 encoder of learned queries as tower; a decoder of experts after a dense first layer.

An image is its tiles, then the whole picture, then a separator. The original has 144 or 256 queries, here 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, DeepseekOcr2Config
from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import (
    DeepseekOcr2SamVisionConfig,
    DeepseekOcr2TextConfig,
    DeepseekOcr2VisionConfig,
    DeepseekOcr2VisionEncoderConfig,
)

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, SIDE, QUERIES = 3, 32, 9
TILES = {"small": 0, "large": 2}


def _config() -> DeepseekOcr2Config:
    sam = DeepseekOcr2SamVisionConfig(
        hidden_size=32, output_channels=8, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=4,
        window_size=4, global_attn_indexes=[1, 3], mlp_dim=64, downsample_channels=[16, 32],
    )  # fmt: skip
    encoder = DeepseekOcr2VisionEncoderConfig(
        vocab_size=8, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    text = DeepseekOcr2TextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
        mlp_layer_types=["dense", *["sparse"] * 5],
    )  # fmt: skip
    vision = DeepseekOcr2VisionConfig(sam_config=sam, encoder_config=encoder)
    return DeepseekOcr2Config(vision_config=vision, text_config=text, image_token_id=IMAGE)


def _model(config: DeepseekOcr2Config) -> Any:
    model = AutoModelForImageTextToText.from_config(config)
    model.model.vision_tower.query_768_resolution = nn.Embedding(QUERIES, 32)
    model.model.vision_tower.query_1024_resolution = nn.Embedding(QUERIES, 32)
    return model


def _image_tokens(config: DeepseekOcr2Config, kind: str) -> list[int]:
    return [IMAGE] * (QUERIES * (TILES[kind] + 1) + 1)


def _features(config: DeepseekOcr2Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    tiles = torch.tensor([TILES[kind] for kind in kinds])
    found = {"pixel_values": torch.randn(len(kinds), 3, SIDE, SIDE, generator=generator), "num_local_patches": tiles}
    if tiles.any():
        found["pixel_values_local"] = torch.randn(int(tiles.sum()), 3, SIDE, SIDE, generator=generator)
    return found


FAMILY = TinyFamily("deepseek_ocr2", _config, _image_tokens, _features, kinds=("small", "large"), model=_model)
