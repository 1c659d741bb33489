"""Kosmos-2: latent queries on a CLIP tower and a decoder with sinusoidal positions; only a mask marks the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Kosmos2Config
from transformers.models.kosmos2.configuration_kosmos2 import Kosmos2TextConfig, Kosmos2VisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

START, END, FIRST, TOKENS = 5, 6, 10, 9


def _image_tokens(config: Kosmos2Config, kind: str) -> list[int]:
    """Return a run of different ids, which stand for words elsewhere."""
    return [START, *range(FIRST, FIRST + TOKENS), END]


def _features(config: Kosmos2Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(len(kinds), 3, 12, 12, generator=generator)}


def _positions(config: Kosmos2Config, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    """Return where the image goes."""
    return {"image_embeds_position_mask": ((input_ids >= FIRST) & (input_ids < FIRST + TOKENS)).long()}


def _config() -> Kosmos2Config:
    vision = Kosmos2VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4
    )
    text = Kosmos2TextConfig(
        vocab_size=99, max_position_embeddings=128, embed_dim=32, layers=6, ffn_dim=64, attention_heads=4,
        pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    return Kosmos2Config(vision_config=vision, text_config=text, latent_query_num=TOKENS)


FAMILY = TinyFamily("kosmos-2", _config, _image_tokens, _features, _positions, max_images=1, text_only=False)
