"""BLIP-2: a Q-Former's queries read the tower; an OPT decoder, with learned positions, takes them as the first tokens.

The model embeds the prompt itself and then calls `generate` of the decoder; every forward needs a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Blip2Config, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, SIDE, QUERIES = 3, 12, 9
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 4,
}
QFORMER: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return one placeholder per query."""
    return [IMAGE] * QUERIES


def features(config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return one picture per row."""
    return {"pixel_values": torch.randn(len(kinds), 3, SIDE, SIDE, generator=generator)}


def _config() -> Blip2Config:
    text = OPTConfig(
        hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=6, num_attention_heads=4, vocab_size=99,
        max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return Blip2Config(
        vision_config=Blip2VisionConfig(**VISION), qformer_config=Blip2QFormerConfig(**QFORMER), text_config=text,
        num_query_tokens=QUERIES, image_token_index=IMAGE,
    )  # fmt: skip


FAMILY = TinyFamily("blip-2", _config, image_tokens, features, max_images=1, text_only=False)
