"""Aria: an Idefics3 tower read by a projector of learned queries; a decoder of shared and routed experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AriaConfig, AriaTextConfig
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, SIDE, QUERIES = 3, 16, 9
CROPS = {"small": 1, "large": 2}


def _config() -> AriaConfig:
    vision = Idefics3VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE, patch_size=4
    )
    text = AriaTextConfig(
        hidden_size=32, intermediate_size=24, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0, moe_num_experts=4, moe_topk=2,
    )  # fmt: skip
    return AriaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, projector_patch_to_query_dict={16: QUERIES}
    )


def _features(config: AriaConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    count = sum(CROPS[kind] for kind in kinds)
    pixels = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    mask[:, :12] = True
    return {"pixel_values": pixels * mask[:, None], "pixel_mask": mask}


FAMILY = TinyFamily(
    "aria", _config, lambda config, kind: [IMAGE] * (QUERIES * CROPS[kind]), _features, kinds=("small", "large")
)
