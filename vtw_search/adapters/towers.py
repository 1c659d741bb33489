"""The shape records of a vision tower and its projector, read from their modules by transformers' conventions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import nn

from profilers.shapes import Grid, PoolingHeadShape, Projection, ProjectorShape, TowerShape
from vtw_search.adapters.shapes import layer_shape
from vtw_search.errors import ModelError

COUNTED_BY_RUNNING = "only a run on a prompt can count it"
_CLASS_TOKENS = ("class_embedding", "cls_token")


def tower_shape(tower: nn.Module, config: Any, feature_layer: int | list[int] | None = None) -> TowerShape:
    """Return the shape of a tower that is one stack of layers over patches.

    Args:
        tower: the module, on any device.
        config: of the tower.
        feature_layer: which hidden states are read, counted as transformers does (0 is the embedding, -1 the last).

    Raises:
        ModelError: it is not one stack, or its layers cannot be read.
    """
    stack = tower_layers(tower)
    layers = tuple(layer_shape(layer, config) for layer in stack)
    patch = _patch_embedding(tower)
    side = getattr(config, "window_size", None) if hasattr(config, "fullatt_block_indexes") else None
    full = frozenset(getattr(config, "fullatt_block_indexes", ()))
    return TowerShape(
        patch=patch,
        layers=layers,
        extra_tokens=int(any(name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in tower.named_parameters())),
        window_side=side // config.patch_size if side else 0,
        windowed=frozenset(range(len(layers))) - full if side else frozenset(),
        live_layers=None if feature_layer is None else _live(feature_layer, len(layers)),
        head=_pooling_head(tower),
        joined=joins_pictures(tower),
    )


def _pooling_head(tower: nn.Module) -> PoolingHeadShape | None:
    for module in tower.modules():
        attention, network = getattr(module, "attention", None), getattr(module, "mlp", None)
        if isinstance(attention, nn.MultiheadAttention) and network is not None:
            return PoolingHeadShape(attention.embed_dim, network.fc1.out_features)
    return None


def tower_layers(tower: nn.Module) -> nn.ModuleList:
    """Return the layers of a tower; ModelError when they are not one list."""
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList) and _is_stack(module)]
    if len(lists) != 1:
        raise ModelError("a tower must be one stack of layers", value=type(tower).__name__, remedy=COUNTED_BY_RUNNING)
    return lists[0]


def _is_stack(modules: nn.ModuleList) -> bool:
    takes = [signature(type(module).forward).parameters for module in modules]
    known = any(name in ("self_attn", "attn", "attention") for name, _ in modules[0].named_children())
    return known and all("hidden_states" in names or "x" in names for names in takes)


def _live(feature_layer: int | list[int], count: int) -> int:
    read = [feature_layer] if isinstance(feature_layer, int) else feature_layer
    return max(layer if layer >= 0 else count + 1 + layer for layer in read)


def reads_sizes(tower: nn.Module) -> bool:
    """Whether what a tower does depends on values in its inputs, so that it cannot run on the meta device."""
    return "grid_thw" in signature(type(tower).forward).parameters


def joins_pictures(tower: nn.Module) -> bool:
    """Whether a tower cuts padded pictures to their sizes and joins those of a call to one sequence; Pixtral does."""
    return "image_sizes" in signature(type(tower).forward).parameters


def has_known_call(tower: nn.Module) -> bool:
    """Whether `tower_inputs` has what a tower must be given."""
    _, *parameters = signature(type(tower).forward).parameters.values()
    needed = {each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD}
    return needed <= ({"hidden_states", "grid_thw"} if reads_sizes(tower) else {"pixel_values"})


def tower_inputs(tower: nn.Module, config: Any, grids: Sequence[Grid], device: str) -> dict[str, torch.Tensor]:
    """Return arguments of a call of `tower` on images of `grids` patches, by transformers' two conventions.

    Args:
        tower: takes pictures of one size, or flattened patches of pictures of any size with their grids.
        config: of the tower.
        grids: rows and columns of patches per image; all alike where the tower takes pictures.
        device: of the arguments.
    """
    if reads_sizes(tower):
        width = _patch_embedding(tower).inputs
        sizes = torch.tensor([(1, rows, columns) for rows, columns in grids], device=device)
        return {"grid_thw": sizes, "hidden_states": torch.zeros(int(sizes.prod(1).sum()), width, device=device)}
    side = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    rows, columns = grids[0]
    channels = getattr(config, "num_channels", 3)
    return {"pixel_values": torch.zeros(len(grids), channels, rows * side, columns * side, device=device)}


def _patch_embedding(tower: nn.Module) -> Projection:
    for name, module in tower.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            return Projection(name, module.in_channels * math.prod(module.kernel_size), module.out_channels)
    for name, module in tower.named_modules():
        if isinstance(module, nn.Linear):
            return Projection(name, module.in_features, module.out_features)
    raise ModelError("a tower must embed its patches", value=type(tower).__name__, remedy=COUNTED_BY_RUNNING)


def projector_shape(parts: Mapping[str, nn.Module], merge: int, extra_rows: int = 0) -> ProjectorShape:
    """Return the shape of modules whose matrices meet every visual token; `parts` by their names in the model.

    Raises:
        ModelError: there are none, or one holds attention or convolutions, which this record has no place for.
    """
    found = sorted({type(module).__name__ for part in parts.values() for module in part.modules() if _is_more(module)})
    if found or not parts:
        raise ModelError(
            "a projector must be matrices that meet every visual token", value=found or "none",
            remedy=COUNTED_BY_RUNNING,
        )  # fmt: skip
    projections = tuple(
        Projection(f"{name}.{inner}".rstrip("."), module.in_features, module.out_features)
        for name, part in parts.items()
        for inner, module in part.named_modules()
        if isinstance(module, nn.Linear)
    )
    return ProjectorShape(projections, merge, extra_rows, tuple(parts))


def _is_more(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)) or "Attention" in type(module).__name__


def frame_count(inputs: Mapping[str, Any]) -> int:
    """Return the frames of all videos of a forward call, which are the last of `image_grids`."""
    videos = inputs.get("pixel_values_videos")
    return 0 if videos is None else math.prod(videos.shape[:-3])


def image_grids(inputs: Mapping[str, Any], patch_size: int | Sequence[int], joined: bool = False) -> list[Grid]:
    """Return the patch grid of every image, crop or frame in the inputs of a forward call.

    Args:
        inputs: of the call.
        patch_size: pixels along the sides of a patch.
        joined: whether the tower cuts pictures to their `image_sizes`; to other towers these say nothing.
    """
    sides = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    grids: list[Grid] = []
    for name in ("image_grid_thw", "video_grid_thw"):
        if inputs.get(name) is not None:
            grids += [(h, w) for t, h, w in inputs[name].tolist() for _ in range(t)]
    if grids:
        return grids
    if joined and inputs.get("image_sizes") is not None:
        return [(height // sides[0], width // sides[1]) for height, width in inputs["image_sizes"].tolist()]
    for name in ("pixel_values", "pixel_values_images", "pixel_values_videos"):
        pixels = inputs.get(name)
        if pixels is not None:
            *images, _, height, width = pixels.shape
            grids += [(height // sides[0], width // sides[1])] * math.prod(images)
    return grids
