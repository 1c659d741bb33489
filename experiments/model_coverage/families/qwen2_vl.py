"""Qwen2-VL: a dynamic-resolution ViT with a 2x2 merger and a Qwen2 decoder with M-RoPE; takes images and video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Qwen2VLConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig, Qwen2VLVisionConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, VIDEO, START, END = 3, 4, 5, 6
Grids = Mapping[str, Any]
Features = Callable[[Any, Sequence[str], torch.Generator], Inputs]
SPECIAL: dict[str, Any] = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
DECODER: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
GRIDS = {"small": (1, 4, 6), "large": (1, 6, 8), "video": (2, 4, 4)}
PATCH = 3 * 2 * 4 * 4  # two frames of 4x4 pixels
MERGE = 4


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return one placeholder for every 2x2 patches, between the vision markers."""
    frames, height, width = GRIDS[kind]
    return [START, *[VIDEO if kind == "video" else IMAGE] * (frames * height * width // MERGE), END]


def frame_by_frame(grids: Grids, kind: str, stamp: Callable[[int], Sequence[int]]) -> list[int]:
    """Return an image between its markers; a video is one marked run for each frame, after `stamp(frame)`."""
    frames, height, width = grids[kind]
    run = [START, *[VIDEO if kind == "video" else IMAGE] * (height * width // MERGE), END]
    return run if kind != "video" else [token for frame in range(frames) for token in (*stamp(frame), *run)]


def grid_features(grids: Grids, *patch: int) -> Features:
    """Return what makes patches of shape `patch` and (frames, rows, columns), images and videos apart.

    Args:
        grids: per kind, its grid, or several of a video that comes in chunks.
        patch: shape of one patch as the tower takes it.
    """

    def features(config: Any, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
        found: Inputs = {}
        for values, grid, wanted in (
            ("pixel_values", "image_grid_thw", [kind for kind in kinds if kind != "video"]),
            ("pixel_values_videos", "video_grid_thw", [kind for kind in kinds if kind == "video"]),
        ):
            if wanted:
                found[grid] = torch.tensor([grids[kind] for kind in wanted]).reshape(-1, 3)
                found[values] = torch.randn(int(found[grid].prod(-1).sum()), *patch, generator=generator)
        return found

    return features


features = grid_features(GRIDS, PATCH)


def token_types(config: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    """Return the modality of every token: text 0, image 1, video 2."""
    return {"mm_token_type_ids": (input_ids == IMAGE).int() + 2 * (input_ids == VIDEO).int()}


def quiet(config: Any) -> Any:
    """Return the model of a config, kept from generating placeholders, for which there would be no features."""
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config.suppress_tokens = [IMAGE, VIDEO]
    return model


def _config() -> Qwen2VLConfig:
    vision = Qwen2VLVisionConfig(depth=2, embed_dim=32, hidden_size=64, num_heads=4, mlp_ratio=2, patch_size=4)
    text = Qwen2VLTextConfig(
        **DECODER,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 3, 3]},
    )
    return Qwen2VLConfig(vision_config=vision, text_config=text, **SPECIAL)


FAMILY = TinyFamily("qwen2_vl", _config, image_tokens, features, token_types, ("small", "large", "video"), model=quiet)
