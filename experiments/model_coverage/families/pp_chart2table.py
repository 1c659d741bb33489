"""PP-Chart2Table: the model of GOT-OCR2 (SAM tower, Qwen2 decoder) with one uncropped chart for every image."""

from __future__ import annotations

from transformers import PPChart2TableConfig, Qwen2Config
from transformers.models.pp_chart2table.configuration_pp_chart2table import PPChart2TableVisionConfig

from experiments.model_coverage.families import got_ocr2
from experiments.model_coverage.tiny import TinyFamily


def _config() -> PPChart2TableConfig:
    vision = PPChart2TableVisionConfig(
        hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=4,
        window_size=3, global_attn_indexes=(1,), mlp_dim=64,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, pad_token_id=0,
    )  # fmt: skip
    return PPChart2TableConfig(
        vision_config=vision, text_config=text, image_token_index=got_ocr2.IMAGE, image_seq_length=got_ocr2.TOKENS
    )


FAMILY = TinyFamily(
    "pp_chart2table", _config, got_ocr2.FAMILY.image_tokens, got_ocr2.FAMILY.features, model=got_ocr2.FAMILY.model
)
