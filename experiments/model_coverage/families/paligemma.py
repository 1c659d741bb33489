"""PaliGemma: a SigLIP tower and a Gemma decoder; the whole prompt is a prefix that attends to itself both ways."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GemmaConfig, PaliGemmaConfig, SiglipVisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, BEGIN = 3, 1


def _config() -> PaliGemmaConfig:
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4,
        vision_use_head=False,
    )  # fmt: skip
    text = GemmaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=99, pad_token_id=0, eos_token_id=2, bos_token_id=BEGIN,
    )  # fmt: skip
    return PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vocab_size=99,
        projection_dim=32,
        hidden_size=32,
    )


def _features(config: PaliGemmaConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(len(kinds), 3, 12, 12, generator=generator)}


def _token_types(config: PaliGemmaConfig, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    return {"token_type_ids": torch.zeros_like(input_ids)}


FAMILY = TinyFamily("paligemma", _config, lambda config, kind: [*[IMAGE] * 9, BEGIN], _features, _token_types, start=())
