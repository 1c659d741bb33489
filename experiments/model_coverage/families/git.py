"""GIT: a CLIP tower whose patches go before the text without placeholders; a BERT-like decoder with learned positions.

Patches attend to each other both ways. Every row has the picture: the model puts it before each row itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, GitConfig, GitVisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

SIDE = 12


def _config() -> GitConfig:
    vision = GitVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE, patch_size=4
    )
    return GitConfig(
        vision_config=vision, hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=4,
        vocab_size=99, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def _features(config: GitConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(len(kinds), 3, SIDE, SIDE, generator=generator)}


def _model(config: GitConfig) -> Any:
    config._attn_implementation = "eager"  # the only one that transformers has for the family
    return AutoModelForImageTextToText.from_config(config)


FAMILY = TinyFamily("git", _config, lambda config, kind: [], _features, max_images=1, text_only=False, model=_model)
