"""Unlimited-OCR: SAM and CLIP encoders as tower and a decoder of experts after a dense first layer.

Generated tokens see the whole prompt but only a window of what was generated. An image is its crops, row by row with a
newline after each, then the whole picture likewise, then a separator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import UnlimitedOcrConfig
from transformers.models.unlimited_ocr.configuration_unlimited_ocr import (
    UnlimitedOcrSamVisionConfig,
    UnlimitedOcrTextConfig,
    UnlimitedOcrVisionConfig,
    UnlimitedOcrVisionEncoderConfig,
)

from experiments.model_coverage.families.qwen2_vl import IMAGE, quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

GLOBAL, LOCAL, STRIDE = 48, 32, 16
GRIDS = {"small": (0, 0), "large": (1, 2)}


def _config() -> UnlimitedOcrConfig:
    sam = UnlimitedOcrSamVisionConfig(
        hidden_size=32, output_channels=8, num_hidden_layers=4, num_attention_heads=4, image_size=GLOBAL, patch_size=4,
        window_size=4, global_attn_indexes=[1, 3], mlp_dim=64, downsample_channels=[16, 32],
    )  # fmt: skip
    encoder = UnlimitedOcrVisionEncoderConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4
    )
    text = UnlimitedOcrTextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2, n_routed_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=24, sliding_window=8,
    )  # fmt: skip
    vision = UnlimitedOcrVisionConfig(sam_config=sam, encoder_config=encoder)
    return UnlimitedOcrConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)


def _model(config: UnlimitedOcrConfig) -> Any:
    """Return the model, which takes numbers of crops as lists: the processor leaves them so, a batch of tensors not."""
    model = quiet(config)

    def listed(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        names = ("num_local_patches", "patches_grid")
        return args, {
            name: value.tolist() if name in names and isinstance(value, torch.Tensor) else value
            for name, value in kwargs.items()
        }

    model.model.register_forward_pre_hook(listed, with_kwargs=True)
    return model


def _image_tokens(config: UnlimitedOcrConfig, kind: str) -> list[int]:
    columns, rows = GRIDS[kind]
    whole, crop = GLOBAL // STRIDE, LOCAL // STRIDE
    return [IMAGE] * (rows * crop * (columns * crop + 1) + whole * (whole + 1) + 1)


def _features(config: UnlimitedOcrConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    grids = torch.tensor([GRIDS[kind] for kind in kinds])
    crops = grids.prod(-1)
    found = {
        "pixel_values": torch.randn(len(kinds), 3, GLOBAL, GLOBAL, generator=generator),
        "num_local_patches": crops,
        "patches_grid": grids,
    }
    if crops.any():
        found["pixel_values_local"] = torch.randn(int(crops.sum()), 3, LOCAL, LOCAL, generator=generator)
    return found


FAMILY = TinyFamily("unlimited_ocr", _config, _image_tokens, _features, kinds=("small", "large"), model=_model)
