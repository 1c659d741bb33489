"""LLaVA-NeXT: the tower and decoder of LLaVA; tiles of any aspect ratio, unpadded, with a vector at each row end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlavaNextConfig

from experiments.model_coverage.families.llava import FAMILY as LLAVA
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, VIDEO = 3, 4
PINPOINTS = [[12, 24], [24, 12], [24, 24]]


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles, and videos into frames.

    Attributes:
        sizes: per kind of image, rows and columns of the original.
        tiles: per kind of image, how many pictures the tower gets, the whole one included.
        tokens: per kind, how many placeholders.
        side: of a tile or frame, in pixels.
        frames: of a video.
    """

    sizes: Mapping[str, tuple[int, int]]
    tiles: Mapping[str, int]
    tokens: Mapping[str, int]
    side: int
    frames: int = 0

    def image_tokens(self, config: Any, kind: str) -> list[int]:
        """Return the placeholders of an image or a video."""
        return [VIDEO if kind == "video" else IMAGE] * self.tokens[kind]

    def features(self, config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
        """Return whole pictures and tiles, zero-padded to the most tiles, sizes of the originals, and videos."""
        found: Inputs = {}
        images = [kind for kind in kinds if kind != "video"]
        if images:
            most = max(self.tiles[kind] for kind in images)
            found["image_sizes"] = torch.tensor([self.sizes[kind] for kind in images])
            found["pixel_values"] = torch.zeros(len(images), most, *self._picture)
            for picture, kind in zip(found["pixel_values"], images, strict=True):
                count = self.tiles[kind]
                picture[:count] = torch.randn(count, *self._picture, generator=generator)
        if videos := len(kinds) - len(images):
            found["pixel_values_videos"] = torch.randn(videos, self.frames, *self._picture, generator=generator)
        return found

    @property
    def _picture(self) -> tuple[int, int, int]:
        return 3, self.side, self.side


def parts() -> dict[str, Any]:
    """Return the settings that are LLaVA's: 3x3 patches a tile."""
    config: Any = LLAVA.config()
    return {"vision_config": config.vision_config, "text_config": config.text_config}


def _config() -> LlavaNextConfig:
    return LlavaNextConfig(**parts(), image_token_index=IMAGE, image_seq_length=9, image_grid_pinpoints=PINPOINTS)


TILING = Tiling(
    sizes={"small": (12, 12), "large": (16, 24)}, tiles={"small": 3, "large": 5},
    tokens={"small": 9 + 3 * (4 + 1), "large": 9 + 4 * (6 + 1)}, side=12,
)  # fmt: skip
FAMILY = TinyFamily("llava_next", _config, TILING.image_tokens, TILING.features, kinds=("small", "large"))
