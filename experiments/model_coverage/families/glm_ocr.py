"""GLM-OCR: a dynamic-resolution ViT with q- and k-norms and a GLM decoder with a head size of its own and M-RoPE."""

from __future__ import annotations

from transformers import GlmOcrConfig
from transformers.models.glm_ocr.configuration_glm_ocr import GlmOcrTextConfig, GlmOcrVisionConfig

from experiments.model_coverage.families.glm4v import (
    DECODER,
    KINDS,
    SPECIAL,
    TOWER,
    features,
    image_tokens,
    quiet,
    token_types,
)
from experiments.model_coverage.tiny import TinyFamily


def _config() -> GlmOcrConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0, "mrope_section": [4, 4, 4]}
    text = GlmOcrTextConfig(**DECODER, head_dim=24, rope_parameters=rope)
    return GlmOcrConfig(vision_config=GlmOcrVisionConfig(**TOWER), text_config=text, **SPECIAL)


FAMILY = TinyFamily("glm_ocr", _config, image_tokens, features, token_types, KINDS, model=quiet)
