"""Muse Glimmer: a windowed ViT and a decoder of sliding layers, with full layers without rotary embedding between them.

Visual tokens are normed before the decoder, which gates its attention and caps its logits.
"""

from __future__ import annotations

from typing import Any

from transformers import MuseGlimmerConfig
from transformers.models.muse_glimmer.configuration_muse_glimmer import MuseGlimmerTextConfig, MuseGlimmerVisionConfig

from experiments.model_coverage.families.qwen2_vl import END, GRIDS, IMAGE, MERGE, START, VIDEO, features, quiet
from experiments.model_coverage.families.qwen2_vl import image_tokens as still_tokens
from experiments.model_coverage.tiny import TinyFamily

SEPARATOR = 7
TOWER: dict[str, Any] = {
    "patch_size": 4,
    "pos_emb_height": 4,
    "pos_emb_width": 4,
    "max_position_embeddings": 16,
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "hidden_size": 32,
    "intermediate_size": 64,
}
DECODER: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 8,
    "output_multiplier": 2.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PROJECTOR: dict[str, Any] = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "out_hidden_size": 32 * MERGE,
    "projector_hidden_size": 48,
}


def image_tokens(config: Any, kind: str) -> list[int]:
    """Return an image between its markers; of a video a time and placeholders for each frame, within one pair."""
    if kind != "video":
        return still_tokens(config, kind)
    frames, height, width = GRIDS[kind]
    run = [VIDEO] * (height * width // MERGE)
    rest = [token for frame in range(1, frames) for token in (SEPARATOR, 10 + frame, *run)]
    return [START, 10, *run, *rest, END]


def _config() -> MuseGlimmerConfig:
    vision, text = MuseGlimmerVisionConfig(**TOWER), MuseGlimmerTextConfig(**DECODER)
    return MuseGlimmerConfig(vision_config=vision, text_config=text, **PROJECTOR)


FAMILY = TinyFamily("muse_glimmer", _config, image_tokens, features, kinds=("small", "large", "video"), model=quiet)
