"""Qwen2.5-VL: a dynamic-resolution ViT with window attention and a Qwen2 decoder with M-RoPE (seconds for video)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig, Qwen2_5_VLVisionConfig

from experiments.model_coverage.families.qwen2_vl import (
    DECODER,
    SPECIAL,
    features,
    image_tokens,
    quiet,
    token_types,
)
from experiments.model_coverage.tiny import Inputs, TinyFamily


def _config() -> Qwen2_5_VLConfig:
    vision = Qwen2_5_VLVisionConfig(
        depth=3, hidden_size=32, out_hidden_size=64, intermediate_size=48, num_heads=4, patch_size=4, window_size=16,
        fullatt_block_indexes=[1],
    )  # fmt: skip
    text = Qwen2_5_VLTextConfig(
        **DECODER,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 3, 3]},
    )
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text, **SPECIAL)


def _features(config: Qwen2_5_VLConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    videos = kinds.count("video")
    seconds = {"second_per_grid_ts": torch.full((videos,), 0.5)} if videos else {}
    return {**features(config, kinds, generator), **seconds}


FAMILY = TinyFamily(
    "qwen2_5_vl", _config, image_tokens, _features, token_types, ("small", "large", "video"), model=quiet
)
