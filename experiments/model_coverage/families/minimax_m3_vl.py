"""MiniMax M3: a ViT with 2x2 merging; full layers, then layers whose queries see only blocks of keys that score best.

The blocks are counted from the first slot, padding included, so a left-padded row differs from the row alone.
"""

from __future__ import annotations

from typing import Any

from transformers.models.minimax_m3_vl.configuration_minimax_m3_vl import (
    MiniMaxM3VLConfig,
    MiniMaxM3VLTextConfig,
    MiniMaxM3VLVisionConfig,
)

from experiments.model_coverage.families.qwen2_vl import DECODER, GRIDS, IMAGE, VIDEO, features, frame_by_frame, quiet
from experiments.model_coverage.tiny import TinyFamily


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return an image between its markers; a video is one marked run of placeholders for each frame, after its time."""
    return frame_by_frame(GRIDS, kind, lambda frame: (10 + frame,))


def _config() -> MiniMaxM3VLConfig:
    rope = {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5}
    vision = MiniMaxM3VLVisionConfig(
        hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=48, patch_size=4
    )
    text = MiniMaxM3VLTextConfig(
        **{**DECODER, "num_hidden_layers": 8, "intermediate_size": 32}, head_dim=16, rotary_dim=8, rope_parameters=rope,
        num_local_experts=4, num_experts_per_tok=2, dense_intermediate_size=96, shared_intermediate_size=32,
        index_n_heads=2, index_head_dim=16, index_block_size=4, index_topk_blocks=3, bos_token_id=1, eos_token_id=2,
        layer_types=["full_attention"] * 2 + ["minimax_m3_sparse"] * 6, mlp_layer_types=["dense"] * 2 + ["sparse"] * 6,
    )  # fmt: skip
    return MiniMaxM3VLConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, video_token_index=VIDEO,
        projector_hidden_size=64,
    )  # fmt: skip


FAMILY = TinyFamily("minimax_m3_vl", _config, image_tokens, features, kinds=("small", "large", "video"), model=quiet)
