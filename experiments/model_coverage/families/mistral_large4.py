"""Mistral Large 4: the tower of Mistral 3 and a decoder of latent attention that sees only what an indexer picks.

Every fourth layer has no rotary embedding; some layers reuse an earlier layer's keys or its picked positions.
"""

from __future__ import annotations

from transformers import PixtralVisionConfig
from transformers.models.mistral_large4.configuration_mistral_large4 import MistralLarge4Config, MistralLarge4TextConfig

from experiments.model_coverage.families import mistral3
from experiments.model_coverage.families.qwen2_vl import quiet
from experiments.model_coverage.tiny import TinyFamily


def _config() -> MistralLarge4Config:
    vision = PixtralVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=4,
        hidden_act="silu",
    )  # fmt: skip
    text = MistralLarge4TextConfig(
        hidden_size=32, intermediate_size=48, moe_intermediate_size=32, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=16, index_topk=8, index_head_dim=16, index_n_heads=16, vocab_size=99,
        pad_token_id=0, kv_source_layers=[0, 1, 1, 3, 4, 4, 6, 3],
        indexer_types=["full", "full", "shared", "full", "full", "shared", "full", "shared"],
    )  # fmt: skip
    return MistralLarge4Config(vision_config=vision, text_config=text, image_token_index=mistral3.IMAGE)


FAMILY = TinyFamily(
    "mistral_large4",
    _config,
    mistral3.FAMILY.image_tokens,
    mistral3.FAMILY.features,
    kinds=("small", "large"),
    model=quiet,
)
