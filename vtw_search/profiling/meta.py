"""The three counts of a model without weights: its decoder on the meta device, its tower there or small on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from profilers.closed_form import patch_macs, projection_macs, tower_layer_macs
from profilers.dispatched import dispatched_macs
from profilers.shapes import Grid, ModelShape, TowerShape
from vtw_search.adapters import Adapter, reads_sizes, tower_inputs, tower_layers
from vtw_search.profiling.audit import Findings, experts_that_torch_counts, first_of_each
from vtw_search.runtime.capture import captured

# Two sizes of a tower that cannot run on meta: neither is square, and both cut windows at their edges.
_SMALL_GRIDS: tuple[list[Grid], ...] = ([(6, 10)], [(12, 4), (10, 14)])


def audit_decoder(adapter: Adapter, model: Any, tokens: int) -> Findings:
    """Count one layer of each shape, and the language head, on `tokens` tokens on the meta device."""
    shape, decoder = adapter.shape(model), model.get_decoder()
    stack = adapter.decoder_layers(model)
    chosen = first_of_each(shape.layers)
    # A mask of full size is taken as it is; without one the model would look at values to make its own.
    inputs = {
        "inputs_embeds": torch.empty(1, tokens, shape.hidden, device="meta"),
        "attention_mask": torch.empty(1, 1, tokens, tokens, device="meta"),
        "position_ids": torch.empty(1, tokens, dtype=torch.long, device="meta"),
        "use_cache": False,
    }
    with experts_that_torch_counts(model):
        with captured(stack[number] for number in chosen) as calls:
            ran = dispatched_macs(decoder, **inputs)
        found = Findings(ran, "meta")
        names = {module: name for name, module in decoder.named_modules()}
        for number, made in zip(chosen, calls, strict=True):
            found.add_layer(names[stack[number]], stack[number], shape.layers[number], made[0])
    _add_head(found, model, shape)
    return found


def _add_head(found: Findings, model: Any, shape: ModelShape) -> None:
    head, state = model.get_output_embeddings(), torch.empty(1, 1, shape.hidden, device="meta")
    found.ran = {**found.ran, "lm_head": dispatched_macs(head, state)[""]}
    found.add_module("lm_head", head, projection_macs(shape.hidden, shape.vocabulary), [((state,), {})], dead=False)


def audit_tower(adapter: Adapter, model: Any, shape: TowerShape, grids: Sequence[Grid]) -> list[Findings]:
    """Count a tower's layers on meta, or, where it reads values, on the CPU; at two small sizes where it takes any.

    Args:
        adapter, model: the model is on the meta device.
        shape: of its tower.
        grids: patches of the images; not used where two small sizes stand for them.
    """
    tower, config = adapter.tower(model), model.config.vision_config
    if reads_sizes(tower):
        small = _first_layers(tower, shape)
        return [_run_tower(small, config, shape, sizes, "cpu") for sizes in _SMALL_GRIDS]
    try:
        return [_run_tower(tower, config, shape, grids, "meta")]
    except (NotImplementedError, RuntimeError) as error:
        # Some towers of pictures of one size look for padding among their patches.
        if "meta" not in str(error):
            raise
    return [_run_tower(_first_layers(tower, shape), config, shape, grids, "cpu")]


def _first_layers(tower: nn.Module, shape: TowerShape) -> nn.Module:
    """Return the tower with as many layers as there have to be for one of every kind, on the CPU, without weights."""
    kinds = [(layer, number in shape.windowed) for number, layer in enumerate(shape.layers)]
    needed = max(kinds.index(kind) for kind in set(kinds)) + 1
    small = copy.deepcopy(tower)
    del tower_layers(small)[needed:]
    return small.to_empty(device="cpu")


def _run_tower(tower: nn.Module, config: Any, shape: TowerShape, grids: Sequence[Grid], device: str) -> Findings:
    layers, patch = list(tower_layers(tower)), tower.get_submodule(shape.patch.name)
    # The tracer has no convolution on the meta device; there, torch's count stands for the patch embedding alone.
    watched = layers if device == "meta" else [*layers, patch]
    with captured(watched) as calls:
        found = Findings(dispatched_macs(tower, **tower_inputs(tower, config, grids, device)), device)
    names = {module: name for name, module in tower.named_modules()}
    for number, macs in enumerate(tower_layer_macs(shape, grids)[: len(layers)]):
        dead = number in shape.dead_layers
        found.add_module(names[layers[number]], layers[number], macs, calls[number], dead)
    found.add_module(shape.patch.name, patch, patch_macs(shape, grids), calls[-1] if device == "cpu" else None, False)
    return found
