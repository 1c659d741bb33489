"""Command A Vision: the tower and decoder of Aya Vision; every tile ends in a line break."""

from __future__ import annotations

from transformers import Cohere2VisionConfig

from experiments.model_coverage.families.aya_vision import (
    END,
    IMAGE,
    START,
    TILES,
    TOKENS,
    features,
    text_config,
    vision_config,
)
from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import TinyFamily

BREAK = 7


def _image_tokens(config: Cohere2VisionConfig, kind: str) -> list[int]:
    return [START, *[*[IMAGE] * TOKENS, BREAK] * TILES[kind], END]


def _config() -> Cohere2VisionConfig:
    return Cohere2VisionConfig(
        vision_config=vision_config(), text_config=text_config(), image_token_id=IMAGE, alignment_intermediate_size=48
    )


FAMILY = TinyFamily("cohere2_vision", _config, _image_tokens, features, kinds=("small", "large"), model=quiet)
