"""Idefics2: a SigLIP tower of native aspect ratio, a perceiver to a fixed number of tokens and a Mistral decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Idefics2Config, MistralConfig
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig, Idefics2VisionConfig

from experiments.model_coverage.families.idefics3 import TOWER, ByRow
from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs

IMAGE, AROUND = 3, 4
TILES = {"small": 1, "large": 5}


def _config() -> Idefics2Config:
    text = MistralConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0, rms_norm_eps=1e-5, sliding_window=8,
    )  # fmt: skip
    perceiver = Idefics2PerceiverConfig(
        hidden_size=32, resampler_n_latents=4, resampler_depth=2, resampler_n_heads=4, resampler_head_dim=8,
        num_key_value_heads=2,
    )  # fmt: skip
    vision = Idefics2VisionConfig(**TOWER)
    return Idefics2Config(
        vision_config=vision, perceiver_config=perceiver, text_config=text, image_token_id=IMAGE, pad_token_id=0
    )


def _image_tokens(config: Idefics2Config, kind: str) -> list[int]:
    return [*[AROUND, *[IMAGE] * 4] * TILES[kind], AROUND]


def _features(config: Idefics2Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    count = sum(TILES[kind] for kind in kinds)
    pixels, mask = torch.randn(count, 3, 24, 24, generator=generator), torch.ones(count, 24, 24, dtype=torch.long)
    pixels[::2, :, :, 16:], mask[::2, :, 16:] = 0, 0
    return {"pixel_values": pixels, "pixel_attention_mask": mask}


FAMILY = ByRow("idefics2", _config, _image_tokens, _features, kinds=("small", "large"), model=quiet, tiles=TILES)
