"""GLM-4.6V: the GLM-4.1V tower and decoder in a wrapper of its own."""

from __future__ import annotations

from transformers import Glm46VConfig
from transformers.models.glm4v.configuration_glm4v import Glm4vTextConfig, Glm4vVisionConfig

from experiments.model_coverage.families.glm4v import (
    DECODER,
    KINDS,
    ROPE,
    SPECIAL,
    TOWER,
    features,
    image_tokens,
    quiet,
    token_types,
)
from experiments.model_coverage.tiny import TinyFamily


def _config() -> Glm46VConfig:
    text = Glm4vTextConfig(**DECODER, rope_parameters=ROPE)
    return Glm46VConfig(vision_config=Glm4vVisionConfig(**TOWER), text_config=text, **SPECIAL)


FAMILY = TinyFamily("glm46v", _config, image_tokens, features, token_types, KINDS, model=quiet)
