"""Whether a model is a stack of self-attention layers over one sequence that holds its visual tokens."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import BaseQuantizedLayer, DynamicLayer

# Settings of a text config that say that image features come in by cross-attention.
_CROSS_ATTENTION = ("cross_attention_layers", "cross_layer_interval", "cross_attention_hidden_size")


def structural_problem(config: Any) -> str | None:
    """Say why policies cannot run on models of this config, or return None when nothing speaks against it.

    The cache that transformers itself makes for a config tells which layers keep something else than keys and values.
    """
    if config.is_encoder_decoder:
        return "it is an encoder-decoder (is_encoder_decoder); its decoder reads the image by cross-attention"
    text = config.get_text_config(decoder=True)
    if text.is_encoder_decoder:
        return "its text model is an encoder-decoder (is_encoder_decoder)"
    for name in _CROSS_ATTENTION:
        if getattr(text, name, None) or getattr(config, name, None):
            return f"its decoder reads the image by cross-attention ({name})"
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    others = sorted(kind.__name__ for kind in kinds if not keeps_keys_and_values(kind))
    if others:
        return f"some decoder layers are not self-attention with a key-value cache ({', '.join(others)})"
    return None


def keeps_keys_and_values(kind: type) -> bool:
    """Tell whether a cache layer class holds one key and one value per token and nothing else that a layer reads."""
    return issubclass(kind, DynamicLayer) and not issubclass(kind, BaseQuantizedLayer) and "Linear" not in kind.__name__


def patched_by(model: nn.Module, layers: nn.ModuleList) -> str | None:
    """Name the module whose forward was replaced by another library, or return None.

    accelerate's placement hooks and quantised linear layers replace no forward of a decoder layer's class.
    """
    for module in (model, *layers):
        replaced = "forward" in vars(module) and not hasattr(module, "_hf_hook")
        if replaced or type(module).forward.__module__ not in {base.__module__ for base in type(module).__mro__}:
            return type(module).__name__
    return None
