"""Ovis2: a ViT that gives a distribution over a visual vocabulary, looked up in a visual table, and a Qwen2 decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Ovis2Config, Qwen2Config
from transformers.models.ovis2.configuration_ovis2 import Ovis2VisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, GRID, COLUMN, ROW, END = 3, 4, 5, 6, 7, 8
GRIDS = {"small": (1, 1), "large": (2, 1)}
LENGTH = 4


def _config() -> Ovis2Config:
    vision = Ovis2VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=4,
        vocab_size=40, hidden_stride=2,
    )  # fmt: skip
    text = Qwen2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return Ovis2Config(
        vision_config=vision, text_config=text, image_token_id=IMAGE, hidden_size=32, vocab_size=99,
        visual_indicator_token_ids=[START, GRID, COLUMN, ROW, END],
    )  # fmt: skip


def _image_tokens(config: Ovis2Config, kind: str) -> list[int]:
    rows, columns = GRIDS[kind]
    tile = [IMAGE] * LENGTH
    tokens = [START, *tile, GRID]
    if rows * columns > 1:
        for row in range(rows):
            for column in range(columns):
                tokens += [*tile, *([COLUMN] if column < columns - 1 else [])]
            tokens += [ROW] if row < rows - 1 else []
    return [*tokens, END]


def _features(config: Ovis2Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    tiles = sum(1 if kind == "small" else 1 + GRIDS[kind][0] * GRIDS[kind][1] for kind in kinds)
    return {"pixel_values": torch.randn(tiles, 3, 16, 16, generator=generator)}


def _model(config: Ovis2Config) -> Any:
    """Return the model, kept from generating what it embeds by itself where there are images."""
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config.suppress_tokens = [IMAGE, START, GRID, COLUMN, ROW, END]
    return model


FAMILY = TinyFamily("ovis2", _config, _image_tokens, _features, kinds=("small", "large"), model=_model)
