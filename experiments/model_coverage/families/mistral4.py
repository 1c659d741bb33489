"""Mistral 4: a decoder with latent attention and experts, which takes images as the text model of Mistral 3.

The mapping names its text-only class; the checkpoints with images are a Mistral 3 model around it.
"""

from __future__ import annotations

from transformers import Mistral3Config, Mistral4Config, PixtralVisionConfig

from experiments.model_coverage.families import mistral3
from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import TinyFamily


def _config() -> Mistral3Config:
    vision = PixtralVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=4
    )
    text = Mistral4Config(
        hidden_size=32, intermediate_size=48, moe_intermediate_size=32, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, kv_lora_rank=16, q_lora_rank=24,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16, vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    text.rope_parameters["original_max_position_embeddings"] = 16
    return Mistral3Config(vision_config=vision, text_config=text, image_token_index=mistral3.IMAGE)


FAMILY = TinyFamily(
    "mistral4", _config, mistral3.FAMILY.image_tokens, mistral3.FAMILY.features, kinds=("small", "large"), model=quiet
)
