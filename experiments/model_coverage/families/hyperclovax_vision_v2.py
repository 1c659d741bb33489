"""HyperCLOVA X Vision 2: a Qwen2.5-VL tower and a decoder with post-norms, MuP multipliers and plain RoPE."""

from __future__ import annotations

from transformers import HyperCLOVAXConfig, HyperCLOVAXVisionV2Config
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig

from experiments.model_coverage.families.qwen2_vl import DECODER, IMAGE, VIDEO, features, image_tokens, quiet
from experiments.model_coverage.tiny import TinyFamily


def _config() -> HyperCLOVAXVisionV2Config:
    vision = Qwen2_5_VLVisionConfig(
        depth=3, hidden_size=32, out_hidden_size=48, intermediate_size=48, num_heads=4, patch_size=4, window_size=16,
        fullatt_block_indexes=[1],
    )  # fmt: skip
    text = HyperCLOVAXConfig(
        **DECODER, embedding_multiplier=2.0, logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.2
    )
    return HyperCLOVAXVisionV2Config(vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO)


FAMILY = TinyFamily(
    "hyperclovax_vision_v2", _config, image_tokens, features, kinds=("small", "large", "video"), model=quiet
)
