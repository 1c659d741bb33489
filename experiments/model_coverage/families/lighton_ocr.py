"""LightOnOCR: a Pixtral tower with a 2x2 patch merger and a Qwen3 decoder; placeholders without row breaks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LightOnOcrConfig, PixtralVisionConfig, Qwen3Config

from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE = 3
SIZES = {"small": (16, 24), "large": (24, 32)}


def _image_tokens(config: LightOnOcrConfig, kind: str) -> list[int]:
    height, width = SIZES[kind]
    return [IMAGE] * (height // 8 * (width // 8))


def _features(config: LightOnOcrConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return images padded with zeros to the largest of the batch."""
    sizes = torch.tensor([SIZES[kind] for kind in kinds])
    height, width = sizes.amax(0).tolist()
    pixels = torch.zeros(len(kinds), 3, height, width)
    for image, (rows, columns) in zip(pixels, sizes.tolist(), strict=True):
        image[:, :rows, :columns] = torch.randn(3, rows, columns, generator=generator)
    return {"pixel_values": pixels, "image_sizes": sizes}


def _config() -> LightOnOcrConfig:
    vision = PixtralVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, head_dim=8, image_size=32,
        patch_size=4,
    )  # fmt: skip
    text = Qwen3Config(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=24, sliding_window=None, pad_token_id=0,
    )  # fmt: skip
    return LightOnOcrConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)


FAMILY = TinyFamily("lighton_ocr", _config, _image_tokens, _features, kinds=("small", "large"), model=quiet)
