"""Fuyu: patches go straight into a Persimmon decoder without a tower; rows end in a newline, the text begins after."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import FuyuConfig, PersimmonConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, NEWLINE, BOS = 3, 4, 1
PATCH = 4
GRIDS = {"small": (3, 3), "large": (3, 5)}


def _config() -> FuyuConfig:
    text = PersimmonConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=4, vocab_size=99, pad_token_id=0
    )
    return FuyuConfig(text_config=text, patch_size=PATCH, image_size=20, image_token_id=IMAGE)


def _image_tokens(config: FuyuConfig, kind: str) -> list[int]:
    height, width = GRIDS[kind]
    return [*[*[IMAGE] * width, NEWLINE] * height, BOS]


def _features(config: FuyuConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    count = sum(GRIDS[kind][0] * GRIDS[kind][1] for kind in kinds)
    return {"pixel_values": torch.randn(count, 3 * PATCH**2, generator=generator)}


FAMILY = TinyFamily("fuyu", _config, _image_tokens, _features, kinds=("small", "large"), max_images=1, start=())
