"""HunyuanOCR: a ViT whose merger adds row ends and borders, and a decoder with RoPE of text, width, height, image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import HunYuanVLConfig
from transformers.models.hunyuan_vl.configuration_hunyuan_vl import HunYuanVLTextConfig, HunYuanVLVisionConfig

from experiments.model_coverage.families.qwen2_vl import DECODER, END, GRIDS, IMAGE, START, quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily


def _image_tokens(config: HunYuanVLConfig, kind: str) -> list[int]:
    """Return placeholders for 2x2 patches, the end of every row, begin and end, between markers."""
    _, height, width = GRIDS[kind]
    return [START, *[IMAGE] * (height // 2 * (width // 2 + 1) + 2), END]


def _features(config: HunYuanVLConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    grids = torch.tensor([GRIDS[kind] for kind in kinds])
    patches = torch.randn(int(grids.prod(-1).sum()), 3 * 4 * 4, generator=generator)
    return {"pixel_values": patches, "image_grid_thw": grids}


def _token_types(config: HunYuanVLConfig, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    return {"mm_token_type_ids": (input_ids == IMAGE).int()}


def _config() -> HunYuanVLConfig:
    vision = HunYuanVLVisionConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, num_hidden_layers=2, out_hidden_size=64,
        patch_size=4, max_image_size=32, min_image_size=8, img_max_token_num=64, max_vit_seq_len=256,
    )  # fmt: skip
    rope = {
        "rope_type": "dynamic",
        "rope_theta": 10000.0,
        "alpha": 1000.0,
        "factor": 1.0,
        "mrope_section": [2, 2, 2, 2],
    }
    text = HunYuanVLTextConfig(**DECODER, head_dim=16, rope_parameters=rope)
    return HunYuanVLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, im_start_id=START, im_end_id=END, im_newline_id=7
    )


FAMILY = TinyFamily(
    "hunyuan_vl", _config, _image_tokens, _features, _token_types, kinds=("small", "large"), model=quiet
)
