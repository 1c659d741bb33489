"""Video-LLaVA: a CLIP tower for images, one for video frames and a Llama decoder; a frame keeps its class token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import VideoLlavaConfig

from experiments.model_coverage.families.llava_next import parts
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, VIDEO, FRAMES = 3, 4, 2


def _config() -> VideoLlavaConfig:
    return VideoLlavaConfig(
        **parts(), image_token_index=IMAGE, video_token_index=VIDEO, image_seq_length=9, video_seq_length=FRAMES * 10
    )


def _image_tokens(config: VideoLlavaConfig, kind: str) -> list[int]:
    return [VIDEO] * FRAMES * 10 if kind == "video" else [IMAGE] * 9


def _features(config: VideoLlavaConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    videos = kinds.count("video")
    found: Inputs = {}
    if images := len(kinds) - videos:
        found["pixel_values"] = torch.randn(images, 3, 12, 12, generator=generator)
    if videos:
        found["pixel_values_videos"] = torch.randn(videos, FRAMES, 3, 12, 12, generator=generator)
    return found


FAMILY = TinyFamily("video_llava", _config, _image_tokens, _features, kinds=("small", "video"))
