"""DeepSeek-VL: a SigLIP tower and a Llama decoder; every image has the same number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DeepseekVLConfig, LlamaConfig, SiglipVisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, SIDE, TOKENS = 3, 12, 9


def parts() -> dict[str, Any]:
    """Return the tower of 3x3 patches and the decoder."""
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE, patch_size=4
    )
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return {"vision_config": vision, "text_config": text, "image_token_id": IMAGE}


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return the placeholders, which have no markers."""
    return [IMAGE] * TOKENS


def _features(config: DeepseekVLConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(len(kinds), 3, SIDE, SIDE, generator=generator)}


FAMILY = TinyFamily("deepseek_vl", lambda: DeepseekVLConfig(**parts()), image_tokens, _features)
