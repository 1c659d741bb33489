"""Qwen3-VL: a dynamic-resolution ViT with deepstack into the first decoder layers and a Qwen3 decoder with M-RoPE."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3VLConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig, Qwen3VLVisionConfig

from experiments.model_coverage.families.qwen2_vl import (
    DECODER,
    GRIDS,
    SPECIAL,
    features,
    frame_by_frame,
    quiet,
    token_types,
)
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
    return frame_by_frame(GRIDS, kind, lambda frame: (7, 10 + frame, 8))


def _config() -> Qwen3VLConfig:
    text = Qwen3VLTextConfig(**DECODER, head_dim=16, rope_parameters=ROPE)
    return Qwen3VLConfig(vision_config=Qwen3VLVisionConfig(**TOWER), text_config=text, **SPECIAL)


FAMILY = TinyFamily("qwen3_vl", _config, image_tokens, features, token_types, ("small", "large", "video"), model=quiet)
