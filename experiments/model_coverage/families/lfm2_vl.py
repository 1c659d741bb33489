"""LFM2-VL: a SigLIP 2 tower and an LFM2 decoder in which short convolutions alternate with attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Lfm2Config, Lfm2VlConfig, Siglip2VisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily


def _config() -> Lfm2VlConfig:
    vision = Siglip2VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_patches=16, patch_size=4
    )
    text = Lfm2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, layer_types=["conv", "conv", "full_attention"] * 2,
    )  # fmt: skip
    return Lfm2VlConfig(vision_config=vision, text_config=text, image_token_id=3)


def _features(config: Lfm2VlConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    count = len(kinds)
    return {
        "pixel_values": torch.randn(count, 16, 48, generator=generator),
        "spatial_shapes": torch.tensor([[4, 4]] * count),
        "pixel_attention_mask": torch.ones(count, 16, dtype=torch.long),
    }


FAMILY = TinyFamily("lfm2_vl", _config, lambda config, kind: [3] * 4, _features)
