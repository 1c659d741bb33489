"""Cohere Compass: Qwen3-VL's tower and deepstack; a Cohere decoder of parallel blocks.

Sliding layers have M-RoPE, full layers have no positions.
"""

from __future__ import annotations

from transformers import CohereCompassConfig
from transformers.models.cohere_compass.configuration_cohere_compass import (
    CohereCompassTextConfig,
    CohereCompassVisionConfig,
)

from experiments.model_coverage.families.qwen2_vl import DECODER, SPECIAL, features, quiet, token_types
from experiments.model_coverage.families.qwen3_vl import ROPE, TOWER, image_tokens
from experiments.model_coverage.tiny import TinyFamily

LAYERS = [*["sliding_attention"] * 3, "full_attention"] * 2


def _config() -> CohereCompassConfig:
    text = CohereCompassTextConfig(
        **{**DECODER, "num_hidden_layers": len(LAYERS)}, layer_types=LAYERS, sliding_window=8, logit_scale=0.5,
        bos_token_id=1, eos_token_id=2, rope_parameters={"sliding_attention": ROPE, "full_attention": None},
    )  # fmt: skip
    return CohereCompassConfig(vision_config=CohereCompassVisionConfig(**TOWER), text_config=text, **SPECIAL)


KINDS = ("small", "large", "video")
FAMILY = TinyFamily("cohere_compass", _config, image_tokens, features, token_types, KINDS, model=quiet)
