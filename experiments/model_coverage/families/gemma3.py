"""Gemma 3: a SigLIP tower and a decoder of sliding and full layers; an image attends to itself both ways."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END, NEWLINES = 3, 4, 5, 6


def vision_config() -> SiglipVisionConfig:
    """Return a tower of 6x6 patches, pooled to 3x3."""
    return SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=24, patch_size=4
    )


def text_config() -> Gemma3TextConfig:
    """Return a decoder of two periods of the sliding pattern, with windows shorter than an image."""
    return Gemma3TextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=12, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, query_pre_attn_scalar=8, sliding_window=8, vocab_size=99, pad_token_id=0, eos_token_id=2,
        bos_token_id=1,
    )  # fmt: skip


def image_tokens(config: Gemma3Config, kind: str) -> list[int]:
    """Return the placeholders of an image between its markers and blank lines."""
    return [NEWLINES, START, *[IMAGE] * 9, END, NEWLINES]


def features(config: Gemma3Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return one square picture per image."""
    return {"pixel_values": torch.randn(len(kinds), 3, 24, 24, generator=generator)}


def token_types(config: Gemma3Config, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    """Return 1 at image tokens."""
    return {"token_type_ids": (input_ids == IMAGE).long()}


def _config() -> Gemma3Config:
    return Gemma3Config(
        vision_config=vision_config(), text_config=text_config(), mm_tokens_per_image=9, boi_token_index=START,
        eoi_token_index=END, image_token_index=IMAGE,
    )  # fmt: skip


FAMILY = TinyFamily("gemma3", _config, image_tokens, features, token_types)
