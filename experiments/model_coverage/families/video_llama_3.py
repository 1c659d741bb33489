"""VideoLLaMA 3: a native-resolution ViT, a Qwen2 decoder without M-RoPE; still video patches are dropped beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers import Qwen2Config, VideoLlama3Config, VideoLlama3VisionConfig

from experiments.model_coverage.families.qwen2_vl import IMAGE, VIDEO, quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

GRIDS = {"small": (1, 2, 3), "large": (1, 3, 4), "video": (3, 4, 4)}
KEPT = ([True] * 4, [False, True, True, False], [True, False, False, False])
COMMA = 7


def _config() -> VideoLlama3Config:
    vision = VideoLlama3VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, patch_size=4
    )
    text = Qwen2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return VideoLlama3Config(vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO)


def _image_tokens(config: VideoLlama3Config, kind: str) -> list[int]:
    if kind == "video":
        frames = [[8, 10 + frame, 9, *[VIDEO] * sum(kept)] for frame, kept in enumerate(KEPT)]
        return [*frames[0], *(token for frame in frames[1:] for token in (COMMA, *frame))]
    return [IMAGE] * math.prod(GRIDS[kind])


def _features(config: VideoLlama3Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    found: Inputs = {}
    for values, name, merge, wanted in (
        ("pixel_values", "image", 1, [kind for kind in kinds if kind != "video"]),
        ("pixel_values_videos", "video", 2, [kind for kind in kinds if kind == "video"]),
    ):
        if wanted:
            grids = torch.tensor([GRIDS[kind] for kind in wanted])
            found[values] = torch.randn(int(grids.prod(-1).sum()), 3 * 4 * 4, generator=generator)
            found[f"{name}_grid_thw"] = grids
            found[f"{name}_merge_sizes"] = torch.full((len(wanted),), merge)
    if "video" in kinds:
        found["video_compression_mask"] = torch.tensor(KEPT).flatten().repeat(kinds.count("video"))
    return found


FAMILY = TinyFamily("video_llama_3", _config, _image_tokens, _features, kinds=("small", "large", "video"), model=quiet)
