"""Qwen3-VL: a dynamic-resolution ViT with deepstack into the first decoder layers and a Qwen3 decoder with M-RoPE."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3VLConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig, Qwen3VLVisionConfig

from experiments.model_coverage.families.qwen2_vl import (
    DECODER,
    END,
    GRIDS,
    MERGE,
    SPECIAL,
    START,
    VIDEO,
    features,
    quiet,
    token_types,
)
from experiments.model_coverage.families.qwen2_vl import image_tokens as still_tokens
from experiments.model_coverage.tiny import TinyFamily

TOWER: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 48,
    "num_heads": 4,
    "patch_size": 4,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0, 1, 2],
}
ROPE = {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return an image as in Qwen2-VL; a video is one marked run of placeholders for each frame, after its time."""
    if kind != "video":
        return still_tokens(config, kind)
    frames, height, width = GRIDS[kind]
    run = [START, *[VIDEO] * (height * width // MERGE), END]
    return [token for frame in range(frames) for token in (7, 10 + frame, 8, *run)]


def _config() -> Qwen3VLConfig:
    text = Qwen3VLTextConfig(**DECODER, head_dim=16, rope_parameters=ROPE)
    return Qwen3VLConfig(vision_config=Qwen3VLVisionConfig(**TOWER), text_config=text, **SPECIAL)


FAMILY = TinyFamily("qwen3_vl", _config, image_tokens, features, token_types, ("small", "large", "video"), model=quiet)
