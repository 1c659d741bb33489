"""LLaVA-NeXT: the tower and decoder of LLaVA; tiles of any aspect ratio, unpadded, with a vector at each row end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlavaNextConfig

from experiments.model_coverage.families.llava import FAMILY as LLAVA
from experiments.model_coverage.tiny import Inputs, TinyFamily

SIZES = {"small": (12, 12), "large": (16, 24)}
TILES = {"small": 3, "large": 5}
TOKENS = {"small": 9 + 3 * (4 + 1), "large": 9 + 4 * (6 + 1)}
PINPOINTS = [[12, 24], [24, 12], [24, 24]]


def parts() -> dict[str, Any]:
    """Return the settings that are LLaVA's: 3x3 patches a tile."""
    config: Any = LLAVA.config()
    return {"vision_config": config.vision_config, "text_config": config.text_config}


def features(config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return the whole picture and its tiles, zero-padded to the most tiles, and the sizes of the originals."""
    pixels = torch.zeros(len(kinds), max(TILES[kind] for kind in kinds), 3, 12, 12)
    for picture, kind in zip(pixels, kinds, strict=True):
        picture[: TILES[kind]] = torch.randn(TILES[kind], 3, 12, 12, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([SIZES[kind] for kind in kinds])}


def _config() -> LlavaNextConfig:
    return LlavaNextConfig(**parts(), image_token_index=3, image_seq_length=9, image_grid_pinpoints=PINPOINTS)


FAMILY = TinyFamily("llava_next", _config, lambda config, kind: [3] * TOKENS[kind], features, kinds=("small", "large"))
