"""Molmo 2: a ViT with pooled crops added onto the placeholders' embeddings; all visual tokens see each other.

The decoder is Qwen3-like, with scaled rotary embeddings in some layers. A forward takes images or videos, never both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Molmo2Config
from transformers.models.molmo2.configuration_molmo2 import Molmo2AdapterConfig, Molmo2TextConfig, Molmo2VisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

START, END, PATCH, COLUMN, LOW_START, FRAME_START, FRAME_END = range(99, 106)
GRIDS = {"small": (2, 2), "large": (2, 4)}
FRAMES = 3
SIDE = 2


def _config() -> Molmo2Config:
    vision = Molmo2VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        head_dim=8, image_size=[16, 16], patch_size=4,
    )  # fmt: skip
    adapter = Molmo2AdapterConfig(
        vision_feature_layer=[2, 0], hidden_size=32, num_attention_heads=4, num_key_value_heads=4, head_dim=8,
        intermediate_size=48, text_hidden_size=32,
    )  # fmt: skip
    rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000000.0, "original_max_position_embeddings": 64}
    text = Molmo2TextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=99, additional_vocab_size=16, max_position_embeddings=256, rope_parameters=rope,
        rope_scaling_layers=[1, 3, 5], pad_token_id=0,
    )  # fmt: skip
    return Molmo2Config(
        vision_config=vision, adapter_config=adapter, text_config=text, image_start_token_id=START,
        low_res_image_start_token_id=LOW_START, image_end_token_id=END, image_patch_id=PATCH,
        frame_start_token_id=FRAME_START, frame_end_token_id=FRAME_END,
    )  # fmt: skip


def _image_tokens(config: Molmo2Config, kind: str) -> list[int]:
    if kind == "video":
        frame = [FRAME_START, *[PATCH] * SIDE**2, FRAME_END]
        return [token for number in range(FRAMES) for token in (10 + number, *frame)]
    height, width = GRIDS[kind]
    low = [LOW_START, *([PATCH] * SIDE + [COLUMN]) * SIDE, END]
    return [*low, START, *([PATCH] * width + [COLUMN]) * height, END]


def _pool(rows: int, columns: int, window: int, offset: int) -> torch.Tensor:
    """Return the patches below every token: windows of a grid of patches, filled up with -1."""
    grid = torch.arange(rows * columns).view(rows, columns) + offset
    grid = torch.nn.functional.pad(grid, (0, -columns % window, 0, -rows % window), value=-1)
    return grid.unfold(0, window, window).unfold(1, window, window).reshape(-1, window**2)


def _features(config: Molmo2Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    if "video" in kinds:
        frames = FRAMES * len(kinds)
        return {
            "pixel_values_videos": torch.randn(frames, 16, 48, generator=generator),
            "video_token_pooling": torch.cat([_pool(4, 4, 3, 16 * frame) for frame in range(frames)]),
            "video_grids": torch.tensor([(FRAMES, SIDE, SIDE)] * len(kinds)),
        }
    crops, pooled = [], []
    for kind in kinds:
        height, width = GRIDS[kind]
        offset = 16 * sum(crops)
        pooled += [_pool(4, 4, 2, offset), _pool(2 * height, 2 * width, 2, offset + 16)]
        crops.append(1 + height * width // SIDE**2)
    return {
        "pixel_values": torch.randn(sum(crops), 16, 48, generator=generator),
        "image_token_pooling": torch.cat(pooled),
        "image_grids": torch.tensor([(SIDE, SIDE, *GRIDS[kind]) for kind in kinds]),
        "image_num_crops": torch.tensor(crops),
    }


def _token_types(config: Molmo2Config, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    return {"mm_token_type_ids": ((input_ids >= START) & (input_ids <= FRAME_END)).long()}


FAMILY = TinyFamily("molmo2", _config, _image_tokens, _features, _token_types, ("small", "video", "large"))
