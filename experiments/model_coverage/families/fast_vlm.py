"""FastVLM: a Qwen2 decoder on the feature map of timm's FastViT, for which a convolution stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText, FastVlmConfig, Qwen2Config, TimmWrapperConfig

from experiments.model_coverage.families.gemma3n import Tower
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, SIDE, TOKENS = 3, 12, 9


def _model(config: FastVlmConfig) -> Any:
    original = AutoModel.from_config

    def from_config(part: Any, **settings: Any) -> nn.Module:
        return Tower(part) if isinstance(part, TimmWrapperConfig) else original(part, **settings)

    with mock.patch.object(AutoModel, "from_config", from_config):
        return AutoModelForImageTextToText.from_config(config)


def _config() -> FastVlmConfig:
    vision = TimmWrapperConfig(architecture="fastvit_mci3", do_pooling=True, hidden_size=32)
    text = Qwen2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return FastVlmConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=TOKENS)


def _features(config: FastVlmConfig, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(len(kinds), 3, SIDE, SIDE, generator=generator)}


FAMILY = TinyFamily("fast_vlm", _config, lambda config, kind: [IMAGE] * TOKENS, _features, model=_model)
