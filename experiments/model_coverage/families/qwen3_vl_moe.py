"""Qwen3-VL MoE: the tower and deepstack of Qwen3-VL with a mixture of experts in every decoder layer."""

from __future__ import annotations

from transformers import Qwen3VLMoeConfig
from transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe import Qwen3VLMoeTextConfig, Qwen3VLMoeVisionConfig

from experiments.model_coverage.families.qwen2_vl import DECODER, SPECIAL, features, quiet, token_types
from experiments.model_coverage.families.qwen3_vl import ROPE, TOWER, image_tokens
from experiments.model_coverage.tiny import TinyFamily


def _config() -> Qwen3VLMoeConfig:
    text = Qwen3VLMoeTextConfig(
        **DECODER, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, rope_parameters=ROPE
    )
    return Qwen3VLMoeConfig(vision_config=Qwen3VLMoeVisionConfig(**TOWER), text_config=text, **SPECIAL)


FAMILY = TinyFamily(
    "qwen3_vl_moe", _config, image_tokens, features, token_types, ("small", "large", "video"), model=quiet
)
