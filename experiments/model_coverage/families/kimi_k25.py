"""Kimi K2.5: a dynamic-resolution ViT and a DeepSeek-V3 decoder with latent attention and experts in groups.

A video is chunks of up to four frames, each averaged over time and after its time stamp; transformers fails on chunks
of more than one frame (`get_video_features` splits as if nothing were averaged), so the chunks here have one.
"""

from __future__ import annotations

from transformers import DeepseekV3Config, Kimi_K25Config
from transformers.models.kimi_k25.configuration_kimi_k25 import Kimi_K25VisionConfig

from experiments.model_coverage.families.qwen2_vl import END, IMAGE, MERGE, START, VIDEO, grid_features, quiet
from experiments.model_coverage.tiny import TinyFamily

GRIDS = {"small": [(1, 4, 6)], "large": [(1, 6, 8)], "video": [(1, 4, 4), (1, 4, 4)]}
CONTENT = 7


def _image_tokens(config: Kimi_K25Config, kind: str) -> list[int]:
    """Return placeholders for 2x2 patches, between markers: of the image or of every chunk after its time."""
    found: list[int] = []
    for number, (_, height, width) in enumerate(GRIDS[kind]):
        placeholder, time = (VIDEO, [10 + number]) if kind == "video" else (IMAGE, [])
        found += [*time, START, 8, CONTENT, *[placeholder] * (height * width // MERGE), END]
    return found


def _config() -> Kimi_K25Config:
    vision = Kimi_K25VisionConfig(
        patch_size=4, pos_emb_height=4, pos_emb_width=4, num_attention_heads=4, num_hidden_layers=2, hidden_size=32,
        intermediate_size=48,
    )  # fmt: skip
    text = DeepseekV3Config(
        vocab_size=99, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=8, n_group=4, topk_group=2,
        num_experts_per_tok=2, first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=24, qk_rope_head_dim=8,
        qk_nope_head_dim=16, v_head_dim=12, pad_token_id=0,
    )  # fmt: skip
    return Kimi_K25Config(
        vision_config=vision, text_config=text, projection_hidden_size=32, image_token_id=IMAGE, video_token_id=VIDEO,
        vision_start_token_id=START, vision_end_token_id=END,
    )  # fmt: skip


FAMILY = TinyFamily(
    "kimi_k25", _config, _image_tokens, grid_features(GRIDS, 3, 4, 4), kinds=("small", "large", "video"), model=quiet
)
