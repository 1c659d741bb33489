"""GLM-4.5V: the GLM-4.1V tower and a GLM-4.5 mixture-of-experts decoder (first layer dense) with partial M-RoPE."""

from __future__ import annotations

from transformers import Glm4vMoeConfig
from transformers.models.glm4v_moe.configuration_glm4v_moe import Glm4vMoeTextConfig, Glm4vMoeVisionConfig

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


def _config() -> Glm4vMoeConfig:
    text = Glm4vMoeTextConfig(
        **DECODER, rope_parameters=ROPE, moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=2
    )
    return Glm4vMoeConfig(vision_config=Glm4vMoeVisionConfig(**TOWER), text_config=text, **SPECIAL)


FAMILY = TinyFamily("glm4v_moe", _config, image_tokens, features, token_types, KINDS, model=quiet)
