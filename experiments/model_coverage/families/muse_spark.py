"""Muse Spark: the tower and layer pattern of Muse Glimmer with experts in a pooled width and gated residuals."""

from __future__ import annotations

from transformers import MuseSparkConfig
from transformers.models.muse_spark.configuration_muse_spark import (
    MuseSparkAudioConfig,
    MuseSparkTextConfig,
    MuseSparkVisionConfig,
)

from experiments.model_coverage.families.muse_glimmer import DECODER, PROJECTOR, TOWER, image_tokens
from experiments.model_coverage.families.qwen2_vl import features, quiet
from experiments.model_coverage.tiny import TinyFamily


def _config() -> MuseSparkConfig:
    text = MuseSparkTextConfig(
        **DECODER, moe_intermediate_size=32, num_local_experts=4, num_experts_per_tok=2, moe_hidden_size=32
    )
    audio = MuseSparkAudioConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_hidden_size=64)
    return MuseSparkConfig(
        vision_config=MuseSparkVisionConfig(**TOWER),
        text_config=text,
        audio_config=audio,
        audio_token_id=9,
        **PROJECTOR,
    )


FAMILY = TinyFamily("muse_spark", _config, image_tokens, features, kinds=("small", "large", "video"), model=quiet)
