"""GLM-4.1V: a dynamic-resolution ViT with a 2x2 merger and a GLM decoder with partial, interleaved M-RoPE.

A video is one run of *image* placeholders for each frame, between video markers; images and videos therefore exclude
each other in one batch.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Glm4vConfig
from transformers.models.glm4v.configuration_glm4v import Glm4vTextConfig, Glm4vVisionConfig

from experiments.model_coverage.families.qwen2_vl import (
    DECODER,
    END,
    GRIDS,
    IMAGE,
    MERGE,
    START,
    VIDEO,
    features,
    quiet,
)
from experiments.model_coverage.tiny import Inputs, TinyFamily

VIDEO_START, VIDEO_END = 7, 8
SPECIAL: dict[str, Any] = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "image_start_token_id": START,
    "image_end_token_id": END,
    "video_start_token_id": VIDEO_START,
    "video_end_token_id": VIDEO_END,
}
TOWER: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 48,
    "num_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
KINDS = ("small", "video", "large")


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return one run of image placeholders between markers, or one for each frame of a video, each with its time."""
    frames, height, width = GRIDS[kind]
    run = [START, *[IMAGE] * (height * width // MERGE), END]
    if kind != "video":
        return run
    return [VIDEO_START, *[token for frame in range(frames) for token in (*run, 10 + frame)], VIDEO_END]


def token_types(config: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    """Return the modality of every token: text 0, image 1, image placeholders between video markers 2."""
    inside = (input_ids == VIDEO_START).cumsum(-1) > (input_ids == VIDEO_END).cumsum(-1)
    return {"mm_token_type_ids": (input_ids == IMAGE).int() * (1 + inside.int())}


def family(
    model_type: str, config: Any, text: Any = Glm4vTextConfig, vision: Any = Glm4vVisionConfig, **decoder: Any
) -> TinyFamily:
    """Return a family that is built like GLM-4.1V.

    Args:
        model_type: of the config.
        config, text, vision: the classes of its config, of its decoder's and of its tower's.
        decoder: settings of the decoder that are the family's own.
    """

    def tiny() -> Any:
        text_config = text(**{**DECODER, "rope_parameters": ROPE, **decoder})
        return config(vision_config=vision(**TOWER), text_config=text_config, **SPECIAL)

    return TinyFamily(model_type, tiny, image_tokens, features, token_types, KINDS, model=quiet)


FAMILY = family("glm4v", Glm4vConfig)
