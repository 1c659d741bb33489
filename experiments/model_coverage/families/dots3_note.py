"""Dots 3 Note: a ViT of experts; a decoder of latent attention, sliding in most layers, else over indexed keys.

Each layer type has its own numbers of heads and RoPE; every head has a gate; experts follow a dense first layer.
"""

from __future__ import annotations

from transformers import Dots3NoteConfig
from transformers.models.dots3_note.configuration_dots3_note import (
    Dots3NoteAudioConfig,
    Dots3NoteTextConfig,
    Dots3NoteVisionConfig,
)

from experiments.model_coverage.families.ernie4_5_vl_moe import GRIDS, features
from experiments.model_coverage.families.qwen2_vl import END, IMAGE, START, VIDEO, quiet
from experiments.model_coverage.tiny import TinyFamily


def _config() -> Dots3NoteConfig:
    vision = Dots3NoteVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, patch_size=4,
        moe_intermediate_size=32, pyramid_num_routed=[-1, 4, 8], adapter_in_dim=32, adapter_out_dim=32,
    )  # fmt: skip
    text = Dots3NoteTextConfig(
        hidden_size=32, intermediate_size=48, moe_intermediate_size=24, shared_experts_intermediate_size=24,
        num_hidden_layers=10, num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2,
        kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=8, head_dim=32,
        index_topk=8, index_head_dim=16, index_n_heads=16, sliding_window=8, swa_num_attention_heads=2,
        swa_num_key_value_heads=2, swa_q_lora_rank=16, swa_kv_lora_rank=24, swa_head_dim=16, swa_qk_nope_head_dim=8,
        swa_v_head_dim=8, vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    audio = Dots3NoteAudioConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, feature_size=16,
        downsample_hidden_size=8, adapter_input_size=32, adapter_out_dim=32,
    )  # fmt: skip
    return Dots3NoteConfig(
        text_config=text, vision_config=vision, audio_config=audio, image_token_id=IMAGE, video_token_id=VIDEO,
        audio_token_id=7,
    )  # fmt: skip


def _image_tokens(config: Dots3NoteConfig, kind: str) -> list[int]:
    frames, height, width = GRIDS[kind]
    return [START, *[VIDEO if kind == "video" else IMAGE] * (frames * height * width // 4), END]


KINDS = ("small", "large", "video")
FAMILY = TinyFamily("dots3_note", _config, _image_tokens, features, kinds=KINDS, model=quiet)
