"""Gemma 4 without a tower: merged patches go straight into the decoder, where an image's tokens attend both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Gemma4UnifiedConfig
from transformers.models.gemma4_unified.configuration_gemma4_unified import (
    Gemma4UnifiedAudioConfig,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedVisionConfig,
)

from experiments.model_coverage.families.gemma4 import GRIDS, KINDS, POOL, SPECIAL, image_tokens
from experiments.model_coverage.families.qwen2_vl import quiet, token_types
from experiments.model_coverage.tiny import Inputs, TinyFamily

PATCH = 2
BUDGET = {"image": 12, "video": 6}


def _patches(kinds: Sequence[str], budget: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    grids = [GRIDS[kind][1:] for kind in kinds for _ in range(GRIDS[kind][0])]
    pixels = torch.zeros(len(grids), budget, 3 * (PATCH * POOL) ** 2)
    positions = torch.full((len(grids), budget, 2), -1)
    for values, place, (height, width) in zip(pixels, positions, grids, strict=True):
        cells = torch.cartesian_prod(torch.arange(height // POOL), torch.arange(width // POOL)).flip(-1)
        values[: len(cells)] = torch.rand(len(cells), pixels.shape[-1], generator=generator)
        place[: len(cells)] = cells
    return pixels, positions


def _features(config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    found: Inputs = {}
    images = [kind for kind in kinds if kind != "video"]
    videos = [kind for kind in kinds if kind == "video"]
    if images:
        found["pixel_values"], found["image_position_ids"] = _patches(images, BUDGET["image"], generator)
    if videos:
        values, positions = _patches(videos, BUDGET["video"], generator)
        found |= {"pixel_values_videos": values, "video_position_ids": positions}
        found["num_frames_per_video"] = torch.tensor([GRIDS[kind][0] for kind in videos])
    return found


def _config() -> Gemma4UnifiedConfig:
    vision = Gemma4UnifiedVisionConfig(
        patch_size=PATCH, pooling_kernel_size=POOL, mm_embed_dim=32, mm_posemb_size=16, output_proj_dims=32
    )
    text = Gemma4UnifiedTextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=4,
        head_dim=8, global_head_dim=16, num_global_key_value_heads=2, attention_k_eq_v=True, sliding_window=8,
        vocab_size=99, final_logit_softcapping=30.0, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    audio = Gemma4UnifiedAudioConfig(audio_embed_dim=16)
    return Gemma4UnifiedConfig(vision_config=vision, text_config=text, audio_config=audio, **SPECIAL)


FAMILY = TinyFamily("gemma4_unified", _config, image_tokens, _features, token_types, KINDS, model=quiet)
