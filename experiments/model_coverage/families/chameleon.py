"""Chameleon: a VQ-VAE makes codes of pixels, whose word embeddings take the placeholders; a decoder with q-norms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import ChameleonConfig, ChameleonVQVAEConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END = 3, 5, 6
SIDE, TOKENS = 6, 9
CODES = range(99, 115)


def _config() -> ChameleonConfig:
    codes = ChameleonVQVAEConfig(
        embed_dim=8, num_embeddings=len(CODES), latent_channels=8, resolution=SIDE, base_channels=32,
        channel_multiplier=[1, 2], num_res_blocks=1,
    )  # fmt: skip
    letters = "".maketrans("0123456789", "ABCDEFGHIJ")
    names = {f"IMGIMG{str(code).translate(letters)}Z": token for code, token in enumerate(CODES)}
    return ChameleonConfig(
        vq_config=codes, hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=CODES.stop, pad_token_id=0, vocabulary_map={"<image>": IMAGE, **names},
    )  # fmt: skip


def _features(config: ChameleonConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(len(kinds), 3, SIDE, SIDE, generator=generator)}


FAMILY = TinyFamily("chameleon", _config, lambda config, kind: [START, *[IMAGE] * TOKENS, END], _features)
