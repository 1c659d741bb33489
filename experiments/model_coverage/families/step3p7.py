"""Step 3.7: a ViT over one global view and local crops; full and sliding layers of different head counts and experts.

Attention outputs are gated per head; the rotary embedding differs by layer type.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Step3p7Config
from transformers.models.step3p7.configuration_step3p7 import Step3p7TextConfig, Step3p7VisionConfig

from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END, PATCH_START, PATCH_END, NEWLINE = 3, 4, 5, 6, 7, 8
CROPS = {"small": 0, "large": 2}
GLOBAL, LOCAL = 48, 32


def _config() -> Step3p7Config:
    vision = Step3p7VisionConfig(
        hidden_size=32, mlp_ratio=2.0, num_hidden_layers=2, num_attention_heads=4, image_size=GLOBAL, patch_size=4,
        max_position_embeddings=(GLOBAL // 4) ** 2,
    )  # fmt: skip
    text = Step3p7TextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=99, pad_token_id=0, sliding_window=8, num_sliding_attention_heads=6,
        layer_types=["full_attention", *["sliding_attention"] * 3] * 2, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, share_expert_dim=32, moe_router_scaling_factor=3.0,
        rope_theta=[5000000.0, *[10000.0] * 3] * 2, partial_rotary_factors=[0.5, *[1.0] * 3] * 2,
        swiglu_limits=[*[0.0] * 6, 7.0, 7.0], swiglu_limits_shared=[*[0.0] * 6, 16.0, 16.0],
    )  # fmt: skip
    return Step3p7Config(vision_config=vision, text_config=text, image_token_id=IMAGE)


def _image_tokens(config: Step3p7Config, kind: str) -> list[int]:
    crop = [PATCH_START, *[IMAGE] * (LOCAL // 16) ** 2, PATCH_END]
    crops = [token for number in range(CROPS[kind]) for token in (*crop, *([NEWLINE] if number else []))]
    return [*crops, START, *[IMAGE] * (GLOBAL // 16) ** 2, END]


def _features(config: Step3p7Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    crops = [CROPS[kind] for kind in kinds]
    found = {
        "pixel_values": torch.randn(len(kinds), 3, GLOBAL, GLOBAL, generator=generator),
        "num_local_patches": torch.tensor(crops),
    }
    if sum(crops):
        found["pixel_values_local"] = torch.randn(sum(crops), 3, LOCAL, LOCAL, generator=generator)
    return found


FAMILY = TinyFamily("step3p7", _config, _image_tokens, _features, kinds=("small", "large"), model=quiet)
