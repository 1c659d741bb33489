"""DeepSeek-VL with two towers: SigLIP at low and SAM at high resolution, joined before the same Llama decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DeepseekVLHybridConfig
from transformers.models.sam.configuration_sam import SamVisionConfig

from experiments.model_coverage.families.deepseek_vl import SIDE, image_tokens, parts
from experiments.model_coverage.tiny import Inputs, TinyFamily

HIGH_SIDE = 32


def _config() -> DeepseekVLHybridConfig:
    high = SamVisionConfig(
        hidden_size=32, output_channels=8, num_hidden_layers=4, num_attention_heads=4, image_size=HIGH_SIDE,
        patch_size=4, window_size=4, global_attn_indexes=[1, 3], mlp_dim=64, num_pos_feats=16,
    )  # fmt: skip
    return DeepseekVLHybridConfig(**parts(), high_res_vision_config=high)


def _features(config: DeepseekVLHybridConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {
        "pixel_values": torch.randn(len(kinds), 3, SIDE, SIDE, generator=generator),
        "high_res_pixel_values": torch.randn(len(kinds), 3, HIGH_SIDE, HIGH_SIDE, generator=generator),
    }


FAMILY = TinyFamily("deepseek_vl_hybrid", _config, image_tokens, _features)
