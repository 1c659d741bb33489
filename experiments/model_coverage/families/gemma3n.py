"""Gemma 3n: AltUp streams, per-layer inputs, shared keys and values; a convolution stands for the tower of timm.

As in the original, image placeholders lie past the text and per-layer tables, in the vocabulary of the tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText, Gemma3nConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.gemma3n.configuration_gemma3n import (
    Gemma3nAudioConfig,
    Gemma3nTextConfig,
    Gemma3nVisionConfig,
)

from experiments.model_coverage.tiny import Inputs, TinyFamily

WORDS, START, NEWLINES = 100, 4, 6
END, IMAGE = WORDS, WORDS + 1
SOUNDS = WORDS + 8


class Tower(nn.Module):
    """Stands for the MobileNet of timm, which may be missing: pixels to a map of features."""

    def __init__(self, config: Gemma3nVisionConfig) -> None:
        """Make a convolution of 4x4 patches."""
        super().__init__()
        self.patches = nn.Conv2d(3, config.hidden_size, 4, 4)

    def forward(self, pixel_values: torch.Tensor, **settings: Any) -> BaseModelOutput:
        """Return the map as (image, channel, row, column)."""
        return BaseModelOutput(last_hidden_state=self.patches(pixel_values))


def _model(config: Gemma3nConfig) -> Any:
    original = AutoModel.from_config

    def from_config(part: Any, **settings: Any) -> nn.Module:
        return Tower(part) if isinstance(part, Gemma3nVisionConfig) else original(part, **settings)

    with mock.patch.object(AutoModel, "from_config", from_config):
        return AutoModelForImageTextToText.from_config(config)


def _config() -> Gemma3nConfig:
    text = Gemma3nTextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=15, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, sliding_window=8, vocab_size=SOUNDS + 8, vocab_size_per_layer_input=WORDS,
        hidden_size_per_layer_input=8, num_kv_shared_layers=5, laurel_rank=8, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, activation_sparsity_pattern=[0.95] * 4 + [0.0] * 11,
    )  # fmt: skip
    audio = Gemma3nAudioConfig(
        vocab_size=8, vocab_offset=SOUNDS, input_feat_size=16, hidden_size=32, conf_num_attention_heads=4,
        conf_num_hidden_layers=1, sscp_conv_channel_size=(8, 4),
    )  # fmt: skip
    return Gemma3nConfig(
        text_config=text, vision_config=Gemma3nVisionConfig(hidden_size=32, vocab_size=8, vocab_offset=WORDS),
        audio_config=audio, vision_soft_tokens_per_image=9, audio_soft_tokens_per_image=4, boi_token_id=START,
        eoi_token_id=END, image_token_id=IMAGE, boa_token_id=5, eoa_token_id=SOUNDS, audio_token_id=SOUNDS + 1,
    )  # fmt: skip


def _features(config: Gemma3nConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(len(kinds), 3, 12, 12, generator=generator)}


def _image_tokens(config: Gemma3nConfig, kind: str) -> list[int]:
    return [NEWLINES, START, *[IMAGE] * 9, END, NEWLINES]


FAMILY = TinyFamily("gemma3n", _config, _image_tokens, _features, model=_model)
