"""InstructBLIP: BLIP-2 whose Q-Former also reads the instruction; here with a Llama decoder, as with Vicuna."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import InstructBlipConfig, InstructBlipQFormerConfig, InstructBlipVisionConfig, LlamaConfig

from experiments.model_coverage.families import blip_2
from experiments.model_coverage.families.blip_2 import IMAGE, QFORMER, QUERIES, VISION
from experiments.model_coverage.tiny import Inputs, TinyFamily


def decoder() -> LlamaConfig:
    """Return a Llama decoder."""
    return LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip


def instructions(count: int, generator: torch.Generator) -> Inputs:
    """Return `count` instructions as the Q-Former reads them."""
    words = torch.randint(30, 90, (count, 5), generator=generator)
    return {"qformer_input_ids": words, "qformer_attention_mask": torch.ones_like(words)}


def _config() -> InstructBlipConfig:
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(**VISION), qformer_config=InstructBlipQFormerConfig(**QFORMER),
        text_config=decoder(), num_query_tokens=QUERIES, image_token_index=IMAGE,
    )  # fmt: skip


def _features(config: InstructBlipConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {**instructions(len(kinds), generator), **blip_2.features(config, kinds, generator)}


FAMILY = TinyFamily("instructblip", _config, blip_2.image_tokens, _features, max_images=1, text_only=False)
