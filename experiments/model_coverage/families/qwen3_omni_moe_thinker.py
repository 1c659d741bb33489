"""Qwen3-Omni MoE thinker: the tower, deepstack and experts of Qwen3-VL MoE beside an audio tower."""

from __future__ import annotations

from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
    Qwen3OmniMoeAudioEncoderConfig,
    Qwen3OmniMoeTextConfig,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeVisionEncoderConfig,
)

from experiments.model_coverage.families.qwen2_5_omni_thinker import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    EARS,
    USER,
    features,
)
from experiments.model_coverage.families.qwen2_vl import DECODER, SPECIAL, image_tokens, quiet
from experiments.model_coverage.families.qwen3_vl import ROPE, TOWER
from experiments.model_coverage.tiny import TinyFamily


def _config() -> Qwen3OmniMoeThinkerConfig:
    text = Qwen3OmniMoeTextConfig(
        **DECODER, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, rope_parameters=ROPE
    )
    audio = Qwen3OmniMoeAudioEncoderConfig(**EARS, n_window_infer=8, conv_chunksize=8, downsample_hidden_size=8)
    return Qwen3OmniMoeThinkerConfig(
        audio_config=audio, vision_config=Qwen3OmniMoeVisionEncoderConfig(**TOWER), text_config=text,
        audio_token_id=AUDIO, audio_start_token_id=AUDIO_START, audio_end_token_id=AUDIO_END, user_token_id=USER,
        **SPECIAL,
    )  # fmt: skip


FAMILY = TinyFamily(
    "qwen3_omni_moe_thinker", _config, image_tokens, features, kinds=("small", "large", "video"), model=quiet
)
