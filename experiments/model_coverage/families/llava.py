"""LLaVA: a CLIP tower and a Llama decoder; every image has the same number of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from experiments.model_coverage.tiny import TinyFamily


def _config() -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4
    )
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return LlavaConfig(vision_config=vision, text_config=text, image_token_id=3, image_seq_length=9)


def _features(config: LlavaConfig, kinds: Sequence[str], generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(len(kinds), 3, 12, 12, generator=generator)}


FAMILY = TinyFamily("llava", _config, lambda config, kind: [3] * 9, _features)
