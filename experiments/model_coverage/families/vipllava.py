"""ViP-LLaVA: as LLaVA, with features from five layers of the tower."""

from __future__ import annotations

from transformers import CLIPVisionConfig, VipLlavaConfig

from experiments.model_coverage.families.llava import FAMILY as LLAVA
from experiments.model_coverage.tiny import TinyFamily


def _config() -> VipLlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=12, num_attention_heads=4, image_size=12, patch_size=4
    )
    text = LLAVA.config().get_text_config()
    return VipLlavaConfig(vision_config=vision, text_config=text, image_token_index=3, image_seq_length=9)


FAMILY = TinyFamily("vipllava", _config, lambda config, kind: [3] * 9, LLAVA.features)
