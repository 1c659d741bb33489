"""Cosmos 3 Edge: SigLIP 2 on packed patches and a decoder of squared-ReLU blocks with M-RoPE."""

from __future__ import annotations

from transformers import Cosmos3EdgeConfig
from transformers.models.cosmos3_edge.configuration_cosmos3_edge import Cosmos3EdgeTextConfig, Cosmos3EdgeVisionConfig

from experiments.model_coverage.families.ernie4_5_vl_moe import GRIDS, features
from experiments.model_coverage.families.qwen2_vl import DECODER, SPECIAL, frame_by_frame, quiet, token_types
from experiments.model_coverage.tiny import TinyFamily


def _config() -> Cosmos3EdgeConfig:
    vision = Cosmos3EdgeVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, patch_size=4, num_patches=16
    )
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [4, 2, 2]}
    text = Cosmos3EdgeTextConfig(**DECODER, head_dim=16, bos_token_id=1, eos_token_id=2, rope_parameters=rope)
    return Cosmos3EdgeConfig(vision_config=vision, text_config=text, projector_hidden_size=64, **SPECIAL)


def _image_tokens(config: Cosmos3EdgeConfig, kind: str) -> list[int]:
    return frame_by_frame(GRIDS, kind, lambda frame: (7, 10 + frame, 8))


KINDS = ("small", "large", "video")
FAMILY = TinyFamily("cosmos3_edge", _config, _image_tokens, features, token_types, KINDS, model=quiet)
