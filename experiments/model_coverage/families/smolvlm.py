"""SmolVLM: as Idefics3, with video as one marked run of tokens for each frame after its time."""

from __future__ import annotations

from transformers import SmolVLMConfig
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

from experiments.model_coverage.families.idefics3 import (
    AROUND,
    IMAGE,
    TILES,
    TOWER,
    WHOLE,
    ByRow,
    features,
    image_tokens,
    text_config,
)


def _config() -> SmolVLMConfig:
    vision = SmolVLMVisionConfig(**TOWER)
    return SmolVLMConfig(vision_config=vision, text_config=text_config(), image_token_id=IMAGE, pad_token_id=0)


def _image_tokens(config: SmolVLMConfig, kind: str) -> list[int]:
    if kind != "video":
        return image_tokens(config, kind)
    frames = range(TILES[kind])
    return [token for frame in frames for token in (7, 20 + frame, AROUND, WHOLE, *[IMAGE] * 9, AROUND)]


FAMILY = ByRow("smolvlm", _config, _image_tokens, features, kinds=("small", "large", "video"))
