"""InstructBLIP for video: four frames, each read by the Q-Former, before a Llama decoder, as with Vicuna."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    InstructBlipVideoConfig,
    InstructBlipVideoQFormerConfig,
    InstructBlipVideoVisionConfig,
)

from experiments.model_coverage.families.blip_2 import IMAGE, QFORMER, SIDE, VISION
from experiments.model_coverage.families.instructblip import decoder, instructions
from experiments.model_coverage.tiny import Inputs, TinyFamily

FRAMES, QUERIES = 4, 4


def _config() -> InstructBlipVideoConfig:
    return InstructBlipVideoConfig(
        vision_config=InstructBlipVideoVisionConfig(**VISION), qformer_config=InstructBlipVideoQFormerConfig(**QFORMER),
        text_config=decoder(), num_query_tokens=QUERIES, video_token_index=IMAGE,
    )  # fmt: skip


def _features(config: InstructBlipVideoConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return one video per row, and the instructions as the Q-Former reads them."""
    pixels = torch.randn(len(kinds), FRAMES, 3, SIDE, SIDE, generator=generator)
    return {"pixel_values": pixels, **instructions(len(kinds), generator)}


FAMILY = TinyFamily(
    "instructblipvideo", _config, lambda config, kind: [IMAGE] * (FRAMES * QUERIES), _features, max_images=1,
    text_only=False,
)  # fmt: skip
