"""Gemma 4 without a tower: merged patches go straight into the decoder, where an image's tokens attend both ways."""

from __future__ import annotations

from transformers import Gemma4UnifiedConfig
from transformers.models.gemma4_unified.configuration_gemma4_unified import (
    Gemma4UnifiedAudioConfig,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedVisionConfig,
)

from experiments.model_coverage.families.gemma4 import DECODER, KINDS, POOL, SPECIAL, cell_features, image_tokens
from experiments.model_coverage.families.qwen2_vl import quiet, token_types
from experiments.model_coverage.tiny import TinyFamily

PATCH = 2


def _config() -> Gemma4UnifiedConfig:
    vision = Gemma4UnifiedVisionConfig(
        patch_size=PATCH, pooling_kernel_size=POOL, mm_embed_dim=32, mm_posemb_size=16, output_proj_dims=32
    )
    text = Gemma4UnifiedTextConfig(**DECODER)
    audio = Gemma4UnifiedAudioConfig(audio_embed_dim=16)
    return Gemma4UnifiedConfig(vision_config=vision, text_config=text, audio_config=audio, **SPECIAL)


FEATURES = cell_features(POOL, 3 * (PATCH * POOL) ** 2, {"image": 12, "video": 6})
FAMILY = TinyFamily("gemma4_unified", _config, image_tokens, FEATURES, token_types, KINDS, model=quiet)
