"""Kosmos-2.5: latent queries on a Pix2Struct tower and a decoder with sinusoidal positions and segment embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Kosmos2_5Config
from transformers.models.kosmos2_5.configuration_kosmos2_5 import Kosmos2_5TextConfig, Kosmos2_5VisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END, TOKENS = 3, 5, 6, 9
ROWS, COLUMNS, MOST = 3, 4, 16


def _features(config: Kosmos2_5Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    """Return patches, each after its row and column counted from one, padded with zeros."""
    patches = torch.zeros(len(kinds), MOST, 2 + 48)
    places = torch.cartesian_prod(torch.arange(1, ROWS + 1), torch.arange(1, COLUMNS + 1)).float()
    patches[:, : len(places), :2] = places
    patches[:, : len(places), 2:] = torch.randn(len(kinds), len(places), 48, generator=generator)
    size = {"width": torch.full((len(kinds),), 4 * COLUMNS), "height": torch.full((len(kinds),), 4 * ROWS)}
    return {"flattened_patches": patches, **size}


def _positions(config: Kosmos2_5Config, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    """Return 1 where the image goes and -1 on its markers."""
    markers = (input_ids == START) | (input_ids == END)
    return {"image_embeds_position_mask": (input_ids == IMAGE).long() - markers.long()}


def _config() -> Kosmos2_5Config:
    vision = Kosmos2_5VisionConfig(
        hidden_size=32, patch_embed_hidden_size=48, intermediate_size=64, head_dim=8, num_hidden_layers=2,
        num_attention_heads=4, max_num_patches=MOST,
    )  # fmt: skip
    text = Kosmos2_5TextConfig(
        vocab_size=99, max_position_embeddings=128, embed_dim=32, layers=6, ffn_dim=64, attention_heads=4,
        pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    return Kosmos2_5Config(vision_config=vision, text_config=text, latent_query_num=TOKENS)


FAMILY = TinyFamily(
    "kosmos-2.5", _config, lambda config, kind: [START, *[IMAGE] * TOKENS, END], _features, _positions, max_images=1
)
