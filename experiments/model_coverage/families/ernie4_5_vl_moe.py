"""ERNIE 4.5 VL: Qwen2-VL's tower with a temporal resampler; a decoder whose text and vision experts are separate.

Experts are chosen by `moe_mm_token_type_ids`, which count the markers as vision; M-RoPE mixes rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Ernie4_5_VLMoeConfig
from transformers.models.ernie4_5_vl_moe.configuration_ernie4_5_vl_moe import (
    Ernie4_5_VLMoeTextConfig,
    Ernie4_5_VLMoeVisionConfig,
)

from experiments.model_coverage.families import qwen2_vl
from experiments.model_coverage.families.qwen2_vl import IMAGE, VIDEO
from experiments.model_coverage.tiny import Inputs, TinyFamily

START, END, VIDEO_START, VIDEO_END = 5, 6, 7, 8
GRIDS = {"small": (1, 4, 6), "large": (1, 6, 8), "video": (4, 4, 4)}
PATCH = 3 * 4 * 4


def fix_biases(model: nn.Module) -> Any:
    """Make routers' correction biases buffers, which stay as they are where weights are drawn at random."""
    for module in model.modules():
        bias = module._parameters.pop("e_score_correction_bias", None)
        if bias is not None:
            module.register_buffer("e_score_correction_bias", bias.data)
    return model


def _model(config: Ernie4_5_VLMoeConfig) -> Any:
    model = fix_biases(qwen2_vl.quiet(config))
    update = model._update_model_kwargs_for_generation

    def lengthen(outputs: Any, model_kwargs: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Give the new token a type, which transformers forgets: without a cache the next forward fails."""
        kwargs: dict[str, Any] = update(outputs, model_kwargs, **settings)
        types = kwargs.get("moe_mm_token_type_ids")
        if types is not None:
            kwargs["moe_mm_token_type_ids"] = torch.cat([types, types.new_zeros(types.shape[0], 1)], dim=-1)
        return kwargs

    model._update_model_kwargs_for_generation = lengthen
    return model


def _config() -> Ernie4_5_VLMoeConfig:
    vision = Ernie4_5_VLMoeVisionConfig(depth=2, hidden_size=32, intermediate_size=64, num_heads=4, patch_size=4)
    text = Ernie4_5_VLMoeTextConfig(
        **qwen2_vl.DECODER, bos_token_id=1, eos_token_id=2, moe_intermediate_size=[32, 16], moe_k=2, moe_num_experts=4,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [3, 3, 2]},
    )  # fmt: skip
    return Ernie4_5_VLMoeConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO, image_start_token_id=START,
        image_end_token_id=END, video_start_token_id=VIDEO_START, video_end_token_id=VIDEO_END,
    )  # fmt: skip


def _image_tokens(config: Any, kind: str) -> list[int]:
    frames, height, width = GRIDS[kind]
    if kind == "video":
        return [VIDEO_START, *[VIDEO] * (frames * height * width // 8), VIDEO_END]
    return [START, *[IMAGE] * (height * width // 4), END]


features = qwen2_vl.grid_features(GRIDS, PATCH)


def _token_types(config: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    types = qwen2_vl.token_types(config, input_ids, attention_mask)
    marked = (input_ids == START) | (input_ids == END)
    marked_video = (input_ids == VIDEO_START) | (input_ids == VIDEO_END)
    return {**types, "moe_mm_token_type_ids": types["mm_token_type_ids"] + marked.int() + 2 * marked_video.int()}


KINDS = ("small", "large", "video")
FAMILY = TinyFamily("ernie4_5_vl_moe", _config, _image_tokens, features, _token_types, KINDS, model=_model)
