"""Cosmos 3 Omni: the tower and decoder of Qwen3-VL, deepstack included."""

from __future__ import annotations

from transformers import Cosmos3OmniConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig, Qwen3VLVisionConfig

from experiments.model_coverage.families.qwen2_vl import DECODER, SPECIAL, features, quiet, token_types
from experiments.model_coverage.families.qwen3_vl import ROPE, TOWER, image_tokens
from experiments.model_coverage.tiny import TinyFamily


def _config() -> Cosmos3OmniConfig:
    text = Qwen3VLTextConfig(**DECODER, head_dim=16, rope_parameters=ROPE)
    return Cosmos3OmniConfig(vision_config=Qwen3VLVisionConfig(**TOWER), text_config=text, **SPECIAL)


KINDS = ("small", "large", "video")
FAMILY = TinyFamily("cosmos3_omni", _config, image_tokens, features, token_types, KINDS, model=quiet)
