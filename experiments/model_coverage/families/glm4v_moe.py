"""GLM-4.5V: the GLM-4.1V tower and a GLM-4.5 mixture-of-experts decoder (first layer dense) with partial M-RoPE."""

from __future__ import annotations

from transformers import Glm4vMoeConfig
from transformers.models.glm4v_moe.configuration_glm4v_moe import Glm4vMoeTextConfig, Glm4vMoeVisionConfig

from experiments.model_coverage.families.glm4v import family

FAMILY = family(
    "glm4v_moe", Glm4vMoeConfig, Glm4vMoeTextConfig, Glm4vMoeVisionConfig, moe_intermediate_size=32,
    n_routed_experts=4, num_experts_per_tok=2,
)  # fmt: skip
