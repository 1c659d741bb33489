"""Gemma 4: a patch ViT pooled by position; a decoder of sliding and full layers with wider heads in full layers.

Per-layer inputs, shared keys and values, experts, keys used as values, and bidirectional attention over an image's
tokens come from different checkpoints of the family; the tiny model has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import Gemma4Config, Gemma4TextConfig, Gemma4VisionConfig

from experiments.model_coverage.families.qwen2_vl import Features, frame_by_frame, quiet, token_types
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, VIDEO, START, END = 3, 4, 5, 6
POOL, PATCH = 2, 4
SPECIAL: dict[str, Any] = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "boi_token_id": START,
    "eoi_token_id": END,
    "audio_token_id": 7,
    "boa_token_id": 8,
    "eoa_token_index": 9,
}
GRIDS = {"small": (1, 4, 6), "large": (1, 6, 8), "video": (2, 4, 4)}


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return one placeholder for every pool of patches between markers; a video has a time stamp before every frame."""
    return frame_by_frame(GRIDS, kind, lambda frame: (40 + frame,))


def cell_features(cell: int, values: int, budget: Mapping[str, int]) -> Features:
    """Return what makes the cells of images and of video frames and their (x, y), padded to a budget with 0 and -1.

    Args:
        cell: patches per side of a cell.
        values: numbers per cell.
        budget: most cells of an `image` and of a frame of a `video`.
    """

    def cells(kinds: Sequence[str], most: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        grids = [GRIDS[kind][1:] for kind in kinds for _ in range(GRIDS[kind][0])]
        pixels, positions = torch.zeros(len(grids), most, values), torch.full((len(grids), most, 2), -1)
        for numbers, place, (height, width) in zip(pixels, positions, grids, strict=True):
            xy = torch.cartesian_prod(torch.arange(height // cell), torch.arange(width // cell)).flip(-1)
            numbers[: len(xy)] = torch.rand(len(xy), values, generator=generator)
            place[: len(xy)] = xy
        return pixels, positions

    def features(config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
        found: Inputs = {}
        images = [kind for kind in kinds if kind != "video"]
        videos = [kind for kind in kinds if kind == "video"]
        if images:
            found["pixel_values"], found["image_position_ids"] = cells(images, budget["image"], generator)
        if videos:
            found["pixel_values_videos"], found["video_position_ids"] = cells(videos, budget["video"], generator)
            found["num_frames_per_video"] = torch.tensor([GRIDS[kind][0] for kind in videos])
        return found

    return features


DECODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "global_head_dim": 16,
    "num_global_key_value_heads": 2,
    "attention_k_eq_v": True,
    "sliding_window": 8,
    "vocab_size": 99,
    "final_logit_softcapping": 30.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _config() -> Gemma4Config:
    vision = Gemma4VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        head_dim=8, pooling_kernel_size=POOL, patch_size=PATCH, position_embedding_size=16,
    )  # fmt: skip
    text = Gemma4TextConfig(
        **DECODER, vocab_size_per_layer_input=99, hidden_size_per_layer_input=8, num_kv_shared_layers=6,
        use_double_wide_mlp=True, enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=24,
        use_bidirectional_attention="vision",
    )  # fmt: skip
    return Gemma4Config(vision_config=vision, text_config=text, **SPECIAL)


FEATURES = cell_features(1, 3 * PATCH**2, {"image": 48, "video": 24})
KINDS = ("small", "large", "video")
FAMILY = TinyFamily("gemma4", _config, image_tokens, FEATURES, token_types, KINDS, model=quiet)
