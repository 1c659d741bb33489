"""GOT-OCR2: a SAM tower with window attention and a Qwen2 decoder; a cropped image is several tiles in one run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GotOcr2Config, PreTrainedModel, Qwen2Config
from transformers.models.got_ocr2.configuration_got_ocr2 import GotOcr2VisionConfig

from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import Inputs, TinyFamily

IMAGE, START, END = 3, 5, 6
TOKENS = 4
TILES = {"small": 1, "large": 3}


def _image_tokens(config: GotOcr2Config, kind: str) -> list[int]:
    return [START, *[IMAGE] * (TOKENS * TILES[kind]), END]


def _features(config: GotOcr2Config, kinds: Sequence[str], generator: torch.Generator) -> Inputs:
    tiles = sum(TILES[kind] for kind in kinds)
    return {"pixel_values": torch.randn(tiles, 3, 32, 32, generator=generator)}


def _config() -> GotOcr2Config:
    vision = GotOcr2VisionConfig(
        hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=4,
        window_size=3, global_attn_indexes=(1,), mlp_dim=64,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, pad_token_id=0,
    )  # fmt: skip
    return GotOcr2Config(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=TOKENS)


def _model(config: GotOcr2Config) -> PreTrainedModel:
    """Return the model with the wanted attention in the decoder: the tower and the whole have eager only."""
    wanted = config._attn_implementation
    config._attn_implementation = {"": "eager", "vision_config": "eager", "text_config": wanted}
    model: PreTrainedModel = quiet(config)
    return model


FAMILY = TinyFamily("got_ocr2", _config, _image_tokens, _features, kinds=("small", "large"), model=_model)
