"""InternVL: a ViT with pixel shuffle over tiles and a Qwen2 decoder; a video is one marked run for each frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END, NEWLINE, FRAME = 3, 4, 5, 6, 7
TILES = {"small": 1, "large": 3, "video": 2}


def _config() -> InternVLConfig:
    vision = InternVLVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=24, patch_size=4
    )
    text = Qwen2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return InternVLConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=9)


def _image_tokens(config: InternVLConfig, kind: str) -> list[int]:
    if kind == "video":
        frames = [[FRAME, 10 + frame, START, *[IMAGE] * 9, END] for frame in range(TILES[kind])]
        return [*frames[0], *(token for frame in frames[1:] for token in (NEWLINE, *frame))]
    return [START, *[IMAGE] * 9 * TILES[kind], END]


def _features(config: InternVLConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(sum(TILES[kind] for kind in kinds), 3, 24, 24, generator=generator)}


FAMILY = TinyFamily("internvl", _config, _image_tokens, _features, kinds=("small", "large", "video"))
