"""EXAONE 4.5: Qwen2.5-VL's tower with grouped queries; an EXAONE 4 decoder, three sliding layers to one full."""

from __future__ import annotations

from transformers import Exaone4_5_Config, Exaone4_5_VisionConfig, Exaone4Config

from experiments.model_coverage.families.qwen2_vl import DECODER, IMAGE, VIDEO, features, image_tokens, quiet
from experiments.model_coverage.tiny import TinyFamily


def _config() -> Exaone4_5_Config:
    vision = Exaone4_5_VisionConfig(
        depth=2, hidden_size=32, intermediate_size=64, num_heads=4, num_key_value_heads=2, patch_size=4,
        window_size=16, out_hidden_size=64, fullatt_block_indexes=[1],
    )  # fmt: skip
    text = Exaone4Config(
        **{**DECODER, "num_hidden_layers": 8},
        sliding_window=8,
        sliding_window_pattern=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Exaone4_5_Config(vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO)


KINDS = ("small", "large", "video")
FAMILY = TinyFamily("exaone4_5", _config, image_tokens, features, kinds=KINDS, model=quiet)
