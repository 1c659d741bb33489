"""Counts of real layers and of a whole tiny LLaVA against closed forms and torch's FlopCounterMode."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, DynamicCache, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from profilers.macs import count_macs
from profilers.prefill import PrefillMacs
from tests.profilers.counted import flops_by_torch, meta

# 4 x 4 patches of 8 pixels and a class token; grouped queries in the decoder.
VISION = CLIPVisionConfig(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)
TEXT = LlamaConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=64,
)
IMAGE_TOKENS, TOKENS = 16, 20


def llama_layer_macs(config: LlamaConfig, queries: int, keys: int) -> int:
    assert config.num_key_value_heads is not None
    head = config.hidden_size // config.num_attention_heads
    key_values = 2 * config.num_key_value_heads * head
    projections = config.hidden_size * (2 * config.hidden_size + key_values)
    feed_forward = 3 * config.hidden_size * config.intermediate_size
    return queries * (projections + feed_forward) + config.num_attention_heads * queries * keys * 2 * head


def clip_layer_macs(config: CLIPVisionConfig, tokens: int) -> int:
    linear = tokens * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)
    return linear + 2 * tokens**2 * config.hidden_size


def tiny_llava(attention: str = "sdpa", vision_feature_layer: int = -1) -> LlavaForConditionalGeneration:
    config = LlavaConfig(
        vision_config=VISION, text_config=TEXT, image_token_index=5, vision_feature_layer=vision_feature_layer
    )
    config._attn_implementation = attention
    model = LlavaForConditionalGeneration(config)
    model.train(False)
    return model


def llava_inputs() -> dict[str, Tensor]:
    input_ids = torch.tensor([[1, 2, *[5] * IMAGE_TOKENS, 3, 4]])
    return {"input_ids": input_ids, "pixel_values": torch.ones(1, 3, 32, 32)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("groups", [4, 2, 1])
def test_llama_decoder_layer(attention: str, groups: int) -> None:
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=groups)
    config._attn_implementation = attention
    with torch.device("meta"):
        layer = LlamaDecoderLayer(config, 0)
    call: dict[str, Any] = {"hidden_states": meta(1, 11, 32), "position_embeddings": (meta(1, 11, 8), meta(1, 11, 8))}
    count = count_macs(layer, **call)
    assert count.total == llama_layer_macs(config, queries=11, keys=11)
    assert count.flops == flops_by_torch(layer, **call)
    assert count.uncalled_modules == ()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_clip_encoder_layer(attention: str) -> None:
    config = CLIPVisionConfig(hidden_size=16, intermediate_size=24, num_attention_heads=2)
    config._attn_implementation = attention
    with torch.device("meta"):
        layer = CLIPEncoderLayer(config)
    count = count_macs(layer, meta(3, 17, 16), attention_mask=None)
    assert count.total == 3 * clip_layer_macs(config, tokens=17)
    assert count.flops == flops_by_torch(layer, meta(3, 17, 16), attention_mask=None)
    assert count.not_counted["aten::layer_norm"] == 2


def test_decode_step_sees_the_cache() -> None:
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
    config._attn_implementation = "sdpa"
    layer, cache = LlamaDecoderLayer(config, 0), DynamicCache()
    cache.update(torch.ones(1, 2, 9, 8), torch.ones(1, 2, 9, 8), layer_idx=0)
    position_embeddings = (torch.ones(1, 1, 8), torch.ones(1, 1, 8))
    count = count_macs(layer, torch.ones(1, 1, 32), past_key_values=cache, position_embeddings=position_embeddings)
    assert count.total == llama_layer_macs(config, queries=1, keys=10)


def macs_of_parts(model: LlavaForConditionalGeneration) -> PrefillMacs:
    parts, hidden = model.model, torch.ones(1, TOKENS, 32)
    position_embeddings = (torch.ones(1, TOKENS, 8), torch.ones(1, TOKENS, 8))
    layers = [
        count_macs(layer, hidden, position_embeddings=position_embeddings) for layer in parts.language_model.layers
    ]
    return PrefillMacs(
        vision=count_macs(parts.vision_tower, torch.ones(1, 3, 32, 32)).total,
        projector=count_macs(parts.multi_modal_projector, torch.ones(1, IMAGE_TOKENS, 16)).total,
        decoder_layers=tuple(layer.total for layer in layers),
        lm_head=count_macs(model.lm_head, hidden).total,
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_whole_llava_is_the_sum_of_its_parts(attention: str) -> None:
    parts = macs_of_parts(tiny_llava(attention))
    whole = count_macs(tiny_llava(attention), **llava_inputs())
    assert whole.total == parts.total
    assert whole.flops == parts.flops == flops_by_torch(tiny_llava("eager"), **llava_inputs())
    assert parts == PrefillMacs(
        vision=16 * (3 * 8 * 8) * 16 + 2 * clip_layer_macs(VISION, tokens=17),
        projector=IMAGE_TOKENS * (16 * 32 + 32 * 32),
        decoder_layers=(llama_layer_macs(TEXT, queries=TOKENS, keys=TOKENS),) * 2,
        lm_head=TOKENS * 32 * 64,
    )


def test_layer_whose_output_is_discarded_is_named() -> None:
    live = count_macs(tiny_llava(vision_feature_layer=-1), **llava_inputs())
    dead = count_macs(tiny_llava(vision_feature_layer=-2), **llava_inputs())
    layer = "model.vision_tower.encoder.layers.1"
    assert {layer, f"{layer}.self_attn", f"{layer}.mlp.fc1"} <= set(dead.uncalled_modules) - set(live.uncalled_modules)
    assert dead.total + clip_layer_macs(VISION, tokens=17) == live.total


def test_hooks_of_others_act_and_stay() -> None:
    def keep_four_tokens(_: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]) -> object:
        cos, sin = kwargs["position_embeddings"]
        return (args[0][:, -4:],), kwargs | {"position_embeddings": (cos[:, -4:], sin[:, -4:])}

    model = tiny_llava()
    full = count_macs(model, **llava_inputs())
    layer = model.model.language_model.layers[1]
    handle = layer.register_forward_pre_hook(keep_four_tokens, with_kwargs=True)
    short = count_macs(model, **llava_inputs())
    assert list(layer._forward_pre_hooks) == [handle.id]
    saved_in_layer = llama_layer_macs(TEXT, TOKENS, TOKENS) - llama_layer_macs(TEXT, 4, 4)
    assert full.total - short.total == saved_in_layer + (TOKENS - 4) * 32 * 64
