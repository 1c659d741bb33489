"""Emu3: a VQ-VAE makes codes of pixels, whose word embeddings take the placeholders, a line end after every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, Emu3Config, Emu3TextConfig, Emu3VQVAEConfig

from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END, WRAPPER, LINE, FRAME, TIMES = 3, 5, 6, 7, 8, 9, 10
DIGIT, FACTOR = 11, 2
SIZES = {"small": (4, 6), "large": (6, 8)}
CODES = range(99, 115)


def _config() -> Emu3Config:
    codes = Emu3VQVAEConfig(
        codebook_size=len(CODES), base_channels=32, channel_multiplier=[1, 2], num_res_blocks=1, attn_resolutions=[1],
        hidden_size=64,
    )  # fmt: skip
    text = Emu3TextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=CODES.stop, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    names = {f"<|visual token {code:06d}|>": token for code, token in enumerate(CODES)}
    return Emu3Config(
        vq_config=codes, text_config=text, vocabulary_map={"<image>": IMAGE, "<|extra_200|>": LINE, **names}
    )


def _image_tokens(config: Emu3Config, kind: str) -> list[int]:
    height, width = (side // FACTOR for side in SIZES[kind])
    return [START, DIGIT + height, TIMES, DIGIT + width, WRAPPER, *[IMAGE] * (height * (width + 1)), FRAME, END]


def _features(config: Emu3Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    sizes = torch.tensor([SIZES[kind] for kind in kinds])
    height, width = sizes.amax(0).tolist()
    pixels = torch.zeros(len(kinds), 3, height, width)
    for picture, (rows, columns) in zip(pixels, sizes.tolist(), strict=True):
        picture[:, :rows, :columns] = torch.randn(3, rows, columns, generator=generator)
    return {"pixel_values": pixels, "image_sizes": sizes}


def _spread(quantizer: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Standardise a picture's latents: those of a random encoder hardly differ, and would all get the same code."""
    deviation, mean = torch.std_mean(inputs[0], dim=(1, 3, 4), keepdim=True)
    return ((inputs[0] - mean) / deviation,)


def _model(config: Emu3Config) -> Any:
    model = AutoModelForImageTextToText.from_config(config)
    model.model.vqmodel.quantize.register_forward_pre_hook(_spread)
    return model


FAMILY = TinyFamily("emu3", _config, _image_tokens, _features, kinds=("small", "large"), model=_model)
