"""Janus: a SigLIP-like tower and a Llama decoder; it also holds a VQ-VAE, which makes images and is idle here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END = 3, 5, 6
TOKENS = 9


def _features(config: JanusConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(len(kinds), 3, 12, 12, generator=generator)}


def _config() -> JanusConfig:
    vision = JanusVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4, mlp_ratio=2.0,
        projection_dim=64, num_image_tokens=TOKENS,
    )  # fmt: skip
    codes = JanusVQVAEConfig(
        embed_dim=8, num_embeddings=32, latent_channels=32, base_channels=32, channel_multiplier=[1, 1],
        num_res_blocks=1, projection_dim=64, image_token_embed_dim=64,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    return JanusConfig(vision_config=vision, vq_config=codes, text_config=text, image_token_id=IMAGE)


FAMILY = TinyFamily("janus", _config, lambda config, kind: [START, *[IMAGE] * TOKENS, END], _features, model=quiet)
