"""Whether a model is a stack of self-attention layers over one sequence that holds its visual tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import DynamicCache, __version__

from vtw_search.adapters.cache_layers import (
    TELLS_OF_SHARED_KEYS,
    DummyLayer,
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)
from vtw_search.facts import Missing

# Settings of a model's or its text model's config, and what each says about how the image is read.
_OTHER_WAYS = {
    "cross_attention_layers": "its decoder reads the image by cross-attention",
    "cross_layer_interval": "its decoder reads the image by cross-attention",
    "encoder_hidden_size": "its decoder reads the image by cross-attention",
    "aligner_num_add_layers": "its decoder reads its second input by cross-attention",
    "dit_config": "its outputs come from a second stack that reads the keys and values of the first",
    "canvas_length": "it denoises a canvas in both directions instead of decoding",
}


def structural_problem(config: Any) -> str | None:
    """Say why policies cannot run on models of this config, or return None when nothing speaks against it.

    The cache that transformers itself makes for a config tells which layers keep something else than keys and values.
    """
    if config.is_encoder_decoder:
        return "it is an encoder-decoder (is_encoder_decoder); its decoder reads the image by cross-attention"
    text = config.get_text_config(decoder=True)
    if text.is_encoder_decoder:
        return "its text model is an encoder-decoder (is_encoder_decoder)"
    for name, reason in _OTHER_WAYS.items():
        if getattr(text, name, None) or getattr(config, name, None):
            return f"{reason} ({name})"
    layers = DynamicCache(config=config).layers
    if not TELLS_OF_SHARED_KEYS and len(layers) < text.num_hidden_layers:
        return f"transformers {__version__} does not tell which layers read the keys of others; 5.20 and later do"
    kinds = {type(layer) for layer in layers}
    others = sorted(kind.__name__ for kind in kinds if not keeps_keys_and_values(kind))
    if others:
        return f"some decoder layers are not plain self-attention with a key-value cache ({', '.join(others)})"
    return None


def keeps_keys_and_values(kind: type) -> bool:
    """Tell whether a cache layer class holds keys and values per token, or nothing since it reads another layer's."""
    return kind in (DynamicLayer, DynamicSlidingWindowLayer, DynamicIndexedLayer, DummyLayer)


def layer_kinds(config: Any) -> list[str]:
    """Return the kind of each decoder layer; layers of a kind see the same earlier tokens."""
    text = config.get_text_config(decoder=True)
    return list(getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers)


@dataclass(frozen=True)
class LayerCache:
    """What one decoder layer holds in a key-value cache.

    Attributes:
        width: numbers per token, keys and values together; 0 where it reads the keys of another layer.
        window: W of a sliding window, of which W - 1 tokens are held; None where all are.
    """

    width: int
    window: int | None


def layer_caches(config: Any) -> list[LayerCache]:
    """Return what each decoder layer holds, from the config alone."""
    text = config.get_text_config(decoder=True)
    layers = DynamicCache(config=config).layers
    # Some configs hold other settings for every layer.
    settings = list(text.per_layer_config) if getattr(text, "is_heterogeneous", False) else [text] * len(layers)
    return [
        LayerCache(_cache_width(own, type(layer)), getattr(layer, "sliding_window", None))
        for own, layer in zip(settings, layers, strict=True)
    ]


def _cache_width(text: Any, kind: type) -> int:
    if kind is DummyLayer:
        return 0
    index = text.index_head_dim if kind is DynamicIndexedLayer else 0
    latent = getattr(text, "kv_lora_rank", None)
    if latent is not None:
        # Multi-head latent attention stores one latent for keys and values of all heads, and its rotary part.
        return int(latent + text.qk_rope_head_dim + index)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * heads * head_dim + index)


def last_layer_before_shared_keys(config: Any) -> int | None:
    """Return the largest K at which layers that read the keys of an earlier layer find them as short as their queries.

    None when no layer reads another one's keys.
    """
    layers = DynamicCache(config=config).layers
    shared = [number for number, layer in enumerate(layers) if isinstance(layer, DummyLayer)]
    if not shared:
        return None
    kinds = layer_kinds(config)
    own = [number for number in range(len(layers)) if number not in shared]
    return min(max(number for number in own if kinds[number] == kinds[reader]) for reader in shared)


def most_positions(config: Any) -> int | None:
    """Return how many tokens the text model has positions for, those of scaled rotary embeddings included.

    None where the config names no number.
    """
    text = config.get_text_config(decoder=True)
    named = getattr(text, "max_position_embeddings", None)
    if not named or named < 0:
        return None
    # Where kinds of layers have embeddings of their own, the number is that of all of them.
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor") or 1
    if kind in ("linear", "dynamic"):
        return int(named * factor)
    # These may name the number with or without the scaling, and the one without beside it.
    original = rope.get("original_max_position_embeddings") or 0
    return max(int(named), int(original * factor))


def recount_problem(config: Any) -> Missing | None:
    """Say why positions cannot be numbered anew when tokens leave before the decoder, or return None."""
    text = config.get_text_config(decoder=True)
    remedy = "position=keep"
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if "mrope_section" in rope or any("mrope_section" in part for part in rope.values() if isinstance(part, dict)):
        return Missing("a position has several planes (M-RoPE)", remedy)
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if kinds or getattr(text, "sliding_window", None):
        return Missing("its windows are defined on the original positions", remedy)
    return None


def patched_by(model: nn.Module, layers: nn.ModuleList) -> str | None:
    """Name the module whose forward was replaced by another library, or return None.

    Looked at is what holds the decoder layers and what is in them. accelerate's placement hooks, which wrap the forward
    of a class, and quantised layers, which are classes of their own, replace none.
    """
    return next((type(module).__name__ for module in _decoder_modules(model, layers) if _is_replaced(module)), None)


def _decoder_modules(model: nn.Module, layers: nn.ModuleList) -> Iterator[nn.Module]:
    place = next(name for name, module in model.named_modules() if module is layers)
    for name, module in model.named_modules():
        holds_them, is_in_them = f"{place}.".startswith(f"{name}.") or not name, name.startswith(f"{place}.")
        if holds_them or is_in_them:
            yield module


def _is_replaced(module: nn.Module) -> bool:
    kind = type(module)
    if kind.forward.__module__ not in {base.__module__ for base in kind.__mro__}:
        return True
    if "forward" not in vars(module):
        return False
    wrapped = vars(module).get("_old_forward") if hasattr(module, "_hf_hook") else None
    return getattr(wrapped, "__func__", None) is not kind.forward
