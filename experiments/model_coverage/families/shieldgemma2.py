"""ShieldGemma 2: Gemma 3 under another config class."""

from __future__ import annotations

from transformers import ShieldGemma2Config

from experiments.model_coverage.families.gemma3 import (
    END,
    IMAGE,
    START,
    features,
    image_tokens,
    text_config,
    token_types,
    vision_config,
)
from experiments.model_coverage.tiny import TinyFamily


def _config() -> ShieldGemma2Config:
    return ShieldGemma2Config(
        vision_config=vision_config(), text_config=text_config(), mm_tokens_per_image=9, boi_token_index=START,
        eoi_token_index=END, image_token_index=IMAGE,
    )  # fmt: skip


FAMILY = TinyFamily("shieldgemma2", _config, image_tokens, features, token_types)
