"""PerceptionLM: a ViT with 2x2 pooling over tiles or frames and a Llama decoder.

The original tower comes from timm; where timm is missing nothing builds it, so here a CLIP tower stands in for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import CLIPVisionConfig, LlamaConfig, PerceptionLMConfig

from experiments.model_coverage.families.qwen2_vl import IMAGE, VIDEO, quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

TILES = {"small": 1, "large": 3, "video": 2}
LENGTH = 4


def _config() -> PerceptionLMConfig:
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=4,
        model_args={"embed_dim": 32},
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return PerceptionLMConfig(
        vision_config=vision, text_config=text, projector_pooling_ratio=2, image_token_id=IMAGE, video_token_id=VIDEO
    )


def _image_tokens(config: PerceptionLMConfig, kind: str) -> list[int]:
    return [VIDEO if kind == "video" else IMAGE] * (LENGTH * TILES[kind])


def _features(config: PerceptionLMConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    found: Inputs = {}
    for name, wanted in (
        ("pixel_values", [kind for kind in kinds if kind != "video"]),
        ("pixel_values_videos", [kind for kind in kinds if kind == "video"]),
    ):
        if wanted:
            found[name] = torch.randn(1, sum(TILES[kind] for kind in wanted), 3, 16, 16, generator=generator)
    return found


FAMILY = TinyFamily("perception_lm", _config, _image_tokens, _features, kinds=("small", "large", "video"), model=quiet)
