"""PaddleOCR-VL: a dynamic-resolution SigLIP tower with a 2x2 projector and an Ernie-like decoder with M-RoPE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PaddleOCRVLConfig
from transformers.models.paddleocr_vl.configuration_paddleocr_vl import PaddleOCRTextConfig, PaddleOCRVisionConfig

from experiments.model_coverage.families.qwen2_vl import DECODER, GRIDS, SPECIAL, image_tokens, quiet, token_types
from experiments.model_coverage.tiny import Inputs, TinyFamily


def _config() -> PaddleOCRVLConfig:
    vision = PaddleOCRVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=4
    )
    rope = {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [2, 3, 3]}
    text = PaddleOCRTextConfig(**DECODER, head_dim=16, rope_parameters=rope)
    return PaddleOCRVLConfig(vision_config=vision, text_config=text, **SPECIAL)


def _features(config: PaddleOCRVLConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    grids = torch.tensor([GRIDS[kind] for kind in kinds])
    pixels = torch.randn(int(grids.prod(-1).sum()), 3, 4, 4, generator=generator)
    return {"pixel_values": pixels, "image_grid_thw": grids}


FAMILY = TinyFamily("paddleocr_vl", _config, image_tokens, _features, token_types, ("small", "large"), model=quiet)
