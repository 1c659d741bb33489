"""Qianfan-OCR: the tiled tower and pixel shuffle of InternVL with a Qwen3 decoder; images only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import QianfanOCRConfig, QianfanOCRVisionConfig, Qwen3Config

from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END = 3, 4, 5
TILES = {"small": 1, "large": 3}


def _config() -> QianfanOCRConfig:
    vision = QianfanOCRVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=24, patch_size=4
    )
    text = Qwen3Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return QianfanOCRConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=9)


def _image_tokens(config: QianfanOCRConfig, kind: str) -> list[int]:
    return [START, *[IMAGE] * 9 * TILES[kind], END]


def _features(config: QianfanOCRConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(sum(TILES[kind] for kind in kinds), 3, 24, 24, generator=generator)}


FAMILY = TinyFamily("qianfan_ocr", _config, _image_tokens, _features, kinds=("small", "large"), model=quiet)
