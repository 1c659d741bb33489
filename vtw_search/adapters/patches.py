"""From the patches of a vision tower to visual tokens."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.parts import VisionTower
from vtw_search.tokens import Grid


def patch_grid(model: nn.Module) -> Grid:
    """Return the patches of an image of the tower's own size."""
    config: Any = model.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    return Grid(side, side)


def clip_tower(model: nn.Module, name: str = "vision_tower") -> VisionTower | None:
    """Return the tower of a model whose projector takes patches without the class token.

    Where it takes the features of several layers, class similarity is measured in the first that is listed.
    """
    config: Any = model.config
    vision, layers = config.vision_config, config.vision_feature_layer
    layer = layers if isinstance(layers, int) else layers[0]
    # ViP-LLaVA has no setting: it always cuts off the first token. Without a class token that would be a patch.
    cuts = getattr(config, "vision_feature_select_strategy", "default") == "default"
    if not cuts or vision.model_type != "clip_vision_model":
        return None
    tower = model.get_submodule(f"model.{name}")
    return VisionTower(tower, vision.num_hidden_layers, 1, layer, patch_grid(model))


def siglip_tower(model: nn.Module, name: str, merge: int = 1) -> VisionTower:
    """Return a tower without class token, whose last features the projector takes, `merge` x `merge` to a token."""
    config: Any = model.config
    tower = model.get_submodule(f"model.{name}")
    return VisionTower(tower, config.vision_config.num_hidden_layers, 0, -1, patch_grid(model), merge)
