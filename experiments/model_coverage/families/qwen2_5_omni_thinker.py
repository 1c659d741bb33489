"""Qwen2.5-Omni thinker: the tower and decoder of Qwen2.5-VL beside an audio tower; positions follow from ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import (
    Qwen2_5OmniAudioEncoderConfig,
    Qwen2_5OmniTextConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniVisionEncoderConfig,
)

from experiments.model_coverage.families.qwen2_vl import DECODER, END, IMAGE, START, VIDEO, image_tokens, quiet
from experiments.model_coverage.families.qwen2_vl import features as vision_features
from experiments.model_coverage.tiny import Inputs, TinyFamily

AUDIO, AUDIO_START, AUDIO_END, USER = 7, 8, 9, 10
EARS: dict[str, Any] = {
    "num_mel_bins": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "d_model": 32,
    "max_source_positions": 20,
    "n_window": 4,
    "output_dim": 64,
}


def _config() -> Qwen2_5OmniThinkerConfig:
    vision = Qwen2_5OmniVisionEncoderConfig(
        depth=3, hidden_size=32, out_hidden_size=64, intermediate_size=48, num_heads=4, patch_size=4, window_size=16,
        fullatt_block_indexes=[1],
    )  # fmt: skip
    text = Qwen2_5OmniTextConfig(
        **DECODER, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 3, 3]}
    )
    return Qwen2_5OmniThinkerConfig(
        audio_config=Qwen2_5OmniAudioEncoderConfig(**EARS), vision_config=vision, text_config=text,
        audio_token_index=AUDIO, image_token_index=IMAGE, video_token_index=VIDEO, audio_start_token_id=AUDIO_START,
        audio_end_token_id=AUDIO_END, user_token_id=USER, vision_start_token_id=START, vision_end_token_id=END,
    )  # fmt: skip


def features(config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return the pixels and grids of Qwen2-VL and the seconds of every video's grid step."""
    videos = kinds.count("video")
    seconds = {"video_second_per_grid": torch.full((videos,), 0.5)} if videos else {}
    return {**vision_features(config, kinds, generator), **seconds}


FAMILY = TinyFamily(
    "qwen2_5_omni_thinker", _config, image_tokens, features, kinds=("small", "large", "video"), model=quiet
)
