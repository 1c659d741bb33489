"""Granite Docling: tiles of a SigLIP tower with deepstack into the first layers of a Granite decoder (coarse route)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GraniteDoclingConfig
from transformers.models.granite_docling.configuration_granite_docling import (
    GraniteDoclingTextConfig,
    GraniteDoclingVisionConfig,
)

from experiments.model_coverage.families.idefics3 import ByRow
from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs

IMAGE, AROUND, WHOLE, NEWLINE, TILE = 3, 4, 5, 6, 10
TOKENS = 4
TILES = {"small": 1, "large": 3}


def _image_tokens(config: GraniteDoclingConfig, kind: str) -> list[int]:
    """Return the run of one tile, or those of a row of two tiles and of the whole picture."""
    count = max(1, TILES[kind] - 1)
    tiles = [token for tile in range(count) for token in (AROUND, TILE + tile, *[IMAGE] * TOKENS)]
    whole = [NEWLINE, AROUND, WHOLE, *[IMAGE] * TOKENS, AROUND] if count > 1 else []
    return [*tiles, NEWLINE, *whole]


def _features(config: GraniteDoclingConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return all tiles one after another; `ByRow` puts them into rows."""
    count = sum(TILES[kind] for kind in kinds)
    return {
        "pixel_values": torch.randn(count, 3, 32, 32, generator=generator),
        "pixel_attention_mask": torch.ones(count, dtype=torch.bool),
    }


def _config() -> GraniteDoclingConfig:
    vision = GraniteDoclingVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, image_size=32, patch_size=4,
        out_hidden_size=64, deepstack_visual_indexes=[0, 1, 2],
    )  # fmt: skip
    text = GraniteDoclingTextConfig(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, attention_multiplier=0.2,
        embedding_multiplier=2.0, residual_multiplier=0.5,
    )  # fmt: skip
    return GraniteDoclingConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, pad_token_id=0)


FAMILY = ByRow("granite_docling", _config, _image_tokens, _features, kinds=("small", "large"), tiles=TILES, model=quiet)
