"""Idefics3: a SigLIP tower with pixel shuffle and a Llama decoder; tiles, each with its own marked run of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Idefics3Config, LlamaConfig
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, AROUND, WHOLE, NEWLINE, TILE = 3, 4, 5, 6, 10
TILES = {"small": 1, "large": 3, "video": 2}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 4,
}


@dataclass(frozen=True)
class ByRow(TinyFamily):
    """A family whose processor gives pixels as (row, tile, ...), padded with empty tiles.

    Attributes:
        tiles: number of tiles of every kind.
    """

    tiles: Mapping[str, int] = field(default_factory=lambda: TILES)

    def inputs(self, rows: Sequence[Sequence[str]], words: int = 6, seed: int = 0) -> Inputs:
        """Return a left-padded batch, with the tiles of every row together."""
        inputs = super().inputs(rows, words, seed)
        counts = [sum(self.tiles[kind] for kind in kinds) for kinds in rows]
        for name in ("pixel_values", "pixel_attention_mask"):
            if name in inputs:
                tiles = inputs[name].split(counts)
                inputs[name] = torch.nn.utils.rnn.pad_sequence(list(tiles), batch_first=True)
        return inputs


def text_config() -> LlamaConfig:
    """Return a Llama decoder."""
    return LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0, rms_norm_eps=1e-5,
    )  # fmt: skip


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return the runs of the tiles of one row of tiles, then that of the whole picture."""
    whole = [AROUND, WHOLE, *[IMAGE] * 9, AROUND]
    if kind == "small":
        return whole
    tiles = [token for tile in range(TILES[kind] - 1) for token in (AROUND, TILE + tile, *[IMAGE] * 9)]
    return [*tiles, NEWLINE, NEWLINE, *whole]


def features(config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return all tiles one after another; `ByRow` puts them into rows."""
    count = sum(TILES[kind] for kind in kinds)
    return {
        "pixel_values": torch.randn(count, 3, 24, 24, generator=generator),
        "pixel_attention_mask": torch.ones(count, 24, 24, dtype=torch.long),
    }


def _config() -> Idefics3Config:
    vision = Idefics3VisionConfig(**TOWER)
    return Idefics3Config(vision_config=vision, text_config=text_config(), image_token_id=IMAGE, pad_token_id=0)


FAMILY = ByRow("idefics3", _config, image_tokens, features, kinds=("small", "large"))
