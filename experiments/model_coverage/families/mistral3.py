"""Mistral 3: a Pixtral tower of native aspect ratio, a 2x2 merger and a Mistral decoder; a marker ends each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Mistral3Config, MistralConfig, PixtralVisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, BREAK, END = 3, 4, 5
SIZES = {"small": (16, 24), "large": (32, 24)}
TOKEN = 8


def _config() -> Mistral3Config:
    vision = PixtralVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=4
    )
    text = MistralConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=99, pad_token_id=0, sliding_window=None, rope_theta=1000000000.0, rms_norm_eps=1e-5,
    )  # fmt: skip
    return Mistral3Config(vision_config=vision, text_config=text, image_token_index=IMAGE)


def _image_tokens(config: Mistral3Config, kind: str) -> list[int]:
    height, width = SIZES[kind]
    rows = [IMAGE] * (width // TOKEN) + [BREAK]
    return [*(rows * (height // TOKEN))[:-1], END]


def _features(config: Mistral3Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    sizes = torch.tensor([SIZES[kind] for kind in kinds])
    pixels = torch.zeros(len(kinds), 3, *sizes.amax(0).tolist())
    for picture, (height, width) in zip(pixels, sizes.tolist(), strict=True):
        picture[:, :height, :width] = torch.randn(3, height, width, generator=generator)
    return {"pixel_values": pixels, "image_sizes": sizes}


FAMILY = TinyFamily("mistral3", _config, _image_tokens, _features, kinds=("small", "large"))
