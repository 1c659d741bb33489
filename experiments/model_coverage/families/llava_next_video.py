"""LLaVA-NeXT-Video: as LLaVA-NeXT, with video frames pooled 2x2."""

from __future__ import annotations

from transformers import CLIPVisionConfig, LlavaNextVideoConfig

from experiments.model_coverage.families.llava import FAMILY as LLAVA
from experiments.model_coverage.families.llava_next import IMAGE, VIDEO, Tiling
from experiments.model_coverage.tiny import TinyFamily

FRAMES = 8


def _config() -> LlavaNextVideoConfig:
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=8, patch_size=4
    )
    return LlavaNextVideoConfig(
        vision_config=vision, text_config=LLAVA.config().get_text_config(), image_token_index=IMAGE,
        video_token_index=VIDEO, image_grid_pinpoints=[[8, 16], [16, 8], [16, 16]], image_seq_length=4,
        video_seq_length=FRAMES,
    )  # fmt: skip


TILING = Tiling(
    sizes={"small": (8, 8), "large": (16, 16)}, tiles={"small": 3, "large": 5},
    tokens={"small": 4 + 2 * (2 + 1), "large": 4 + 4 * (4 + 1), "video": FRAMES}, side=8, frames=FRAMES,
)  # fmt: skip
KINDS = ("small", "large", "video")
FAMILY = TinyFamily("llava_next_video", _config, TILING.image_tokens, TILING.features, kinds=KINDS)
