"""The shape record of one transformer layer, read from its modules by transformers' naming conventions.

Widths come from the weights, so that a model on the meta device is enough; only what no weight shows (how many experts
take a token, which window a layer has) is asked of the config. What is not understood becomes one product per token;
the comparison with two counters (`profilers.audit`) tells whether that was right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from profilers.shapes import (
    AttentionShape,
    ExpertsShape,
    FeedForwardShape,
    LayerShape,
    Projection,
    ScoreProduct,
)
from vtw_search.errors import ModelError

_ATTENTION = ("self_attn", "attention", "attn", "self_attention")
_OUTPUT = ("o_proj", "out_proj", "proj", "dense", "projection_layer")
_TOP_K = ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "moe_num_experts_per_tok", "moe_top_k")
_ROUTERS = ("gate", "router")


def layer_shape(layer: nn.Module, config: Any, number: int = 0) -> LayerShape:
    """Return the shape of one layer.

    Args:
        layer: the module, on any device.
        config: of the text model or of the vision tower.
        number: which layer, for settings that differ from layer to layer.

    Raises:
        ModelError: the layer has no attention or feed-forward network under a known name, or a weight does not fit.
    """
    attention = _child(layer, _ATTENTION)
    mixtures = [module for module in layer.modules() if _is_mixture(module)]
    networks = [module for module in layer.modules() if _is_network(module)]
    read = {module for part in (attention, *networks, *map(_router, mixtures)) for module in part.modules()}
    extras = tuple(
        Projection(name, module.in_features, module.out_features)
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and module not in read
    )
    name = next(name for name, module in layer.named_children() if module is attention)
    shape = _attention_shape(attention, name, window_of(config, number))
    experts = tuple(_experts_shape(mixture, config) for mixture in mixtures)
    return LayerShape(shape.projections[0].inputs, shape, tuple(map(_network_shape, networks)), experts, extras)


def window_of(config: Any, number: int) -> int | None:
    """Return how many keys a query of layer `number` sees at most, or None for all."""
    settings = settings_of(config, number)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding" not in kinds[number] and "chunked" not in kinds[number]:
        return None
    if getattr(settings, "use_sliding_window", True) is False:
        return None
    found = getattr(settings, "sliding_window", None) or getattr(settings, "attention_chunk_size", None)
    return None if found is None else int(found)


def settings_of(config: Any, number: int) -> Any:
    """Return the settings of layer `number`; a config may hold others for some layers."""
    return config.per_layer_config[number] if getattr(config, "is_heterogeneous", False) else config


def _child(layer: nn.Module, names: tuple[str, ...]) -> nn.Module:
    for name in names:
        found = getattr(layer, name, None)
        if isinstance(found, nn.Module):
            return found
    known = ", ".join(name for name, _ in layer.named_children())
    remedy = f"override Adapter.layer_shape in the family's file; its children are {known}"
    raise ModelError(f"a layer must have one of {', '.join(names)}", value=type(layer).__name__, remedy=remedy)


def _attention_shape(module: nn.Module, name: str, window: int | None) -> AttentionShape:
    linears = {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}
    key_width = _number(module, "qk_head_dim", "head_dim", "head_size")
    value_width = _number(module, "v_head_dim", "head_dim", "head_size")
    output = next((linears[name] for name in _OUTPUT if name in linears), None)
    if output is None:
        raise ModelError(
            f"attention must have one of {', '.join(_OUTPUT)}", value=sorted(linears),
            remedy="override Adapter.layer_shape in the family's file",
        )  # fmt: skip
    heads = output.in_features // value_width
    keys = linears["k_proj"].out_features // key_width if "k_proj" in linears else heads
    # DeepSeek's sparse attention scores every pair with small heads and adds the heads up with weights: width + 1.
    indexer: Any = getattr(module, "indexer", None)
    return AttentionShape(
        heads=heads,
        key_heads=keys,
        key_width=key_width,
        value_width=value_width,
        projections=tuple(Projection(name, each.in_features, each.out_features) for name, each in linears.items()),
        window=window,
        scores=() if indexer is None else (ScoreProduct("indexer", indexer.n_heads, indexer.head_dim + 1),),
        module=name,
        cache_width=_cache_width(linears, keys * (key_width + value_width), indexer),
    )


def _cache_width(linears: Mapping[str, nn.Linear], plain: int, indexer: Any) -> int:
    if "q_proj" in linears and not any(name.startswith("k") for name in linears):
        return 0
    # Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) caches the latent and the rotary key of all heads.
    latent = linears.get("kv_a_proj_with_mqa")
    return (plain if latent is None else latent.out_features) + (0 if indexer is None else int(indexer.head_dim))


def _number(module: nn.Module, *names: str) -> int:
    for name in names:
        if isinstance(found := getattr(module, name, None), int):
            return found
    remedy = "override Adapter.layer_shape in the family's file"
    raise ModelError(f"attention must say its {names[-1]}", value=type(module).__name__, remedy=remedy)


def _is_network(module: nn.Module) -> bool:
    """Whether a module is a dense network of two or three matrices, fused or not."""
    linears = [child for child in module.children() if isinstance(child, nn.Linear)]
    others = [child for child in module.children() if next(child.parameters(), None) is not None]
    return len(linears) in (2, 3) and len(linears) == len(others) and _is_up_and_down(linears)


def _is_up_and_down(linears: list[nn.Linear]) -> bool:
    *up, down = linears
    return all(each.in_features == down.out_features for each in up) and up[0].out_features in (
        down.in_features,
        2 * down.in_features,
    )


def _network_shape(module: nn.Module) -> FeedForwardShape:
    *up, down = (child for child in module.children() if isinstance(child, nn.Linear))
    return FeedForwardShape(
        down.out_features, down.in_features, sum(each.out_features for each in up) > down.in_features
    )


def _is_mixture(module: nn.Module) -> bool:
    experts = getattr(module, "experts", None)
    return isinstance(experts, nn.Module) and hasattr(experts, "down_proj")


def _router(mixture: nn.Module) -> nn.Module:
    return next(child for name, child in mixture.named_children() if name in _ROUTERS)


def _experts_shape(mixture: nn.Module, config: Any) -> ExpertsShape:
    experts: Any = mixture.experts
    count, *sides = experts.down_proj.shape
    hidden = _router_weight(mixture).shape[1]
    intermediate = sides[0] if sides[1] == hidden else sides[1]
    gated = hasattr(experts, "gate_up_proj")
    router = Projection("router", hidden, count)
    return ExpertsShape(router, FeedForwardShape(hidden, intermediate, gated), _top_k(config))


def _router_weight(mixture: nn.Module) -> Any:
    return next(weight for weight in _router(mixture).parameters() if weight.ndim == 2)


def _top_k(config: Any) -> int:
    for name in _TOP_K:
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    remedy = "override Adapter.layer_shape in the family's file"
    raise ModelError("the config must say how many experts take a token", value=config.model_type, remedy=remedy)
