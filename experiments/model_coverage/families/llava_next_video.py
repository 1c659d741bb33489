"""LLaVA-NeXT-Video: as LLaVA-NeXT, with video frames pooled 2x2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import CLIPVisionConfig, LlavaNextVideoConfig

from experiments.model_coverage.families.llava import FAMILY as LLAVA
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, VIDEO, FRAMES = 3, 4, 8
SIZES = {"small": (8, 8), "large": (16, 16)}
TILES = {"small": 3, "large": 5}
TOKENS = {"small": 4 + 2 * (2 + 1), "large": 4 + 4 * (4 + 1), "video": FRAMES}


def _config() -> LlavaNextVideoConfig:
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=8, patch_size=4
    )
    return LlavaNextVideoConfig(
        vision_config=vision, text_config=LLAVA.config().get_text_config(), image_token_index=IMAGE,
        video_token_index=VIDEO, image_grid_pinpoints=[[8, 16], [16, 8], [16, 16]], image_seq_length=4,
        video_seq_length=FRAMES,
    )  # fmt: skip


def _image_tokens(config: LlavaNextVideoConfig, kind: str) -> list[int]:
    return [VIDEO if kind == "video" else IMAGE] * TOKENS[kind]


def _features(config: LlavaNextVideoConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    found: Inputs = {}
    images = [kind for kind in kinds if kind != "video"]
    if images:
        found["image_sizes"] = torch.tensor([SIZES[kind] for kind in images])
        found["pixel_values"] = torch.zeros(len(images), max(TILES[kind] for kind in images), 3, 8, 8)
        for picture, kind in zip(found["pixel_values"], images, strict=True):
            picture[: TILES[kind]] = torch.randn(TILES[kind], 3, 8, 8, generator=generator)
    if videos := len(kinds) - len(images):
        found["pixel_values_videos"] = torch.randn(videos, FRAMES, 3, 8, 8, generator=generator)
    return found


FAMILY = TinyFamily("llava_next_video", _config, _image_tokens, _features, kinds=("small", "large", "video"))
