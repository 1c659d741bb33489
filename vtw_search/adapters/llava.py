"""LLaVA (Liu et al. 2023): one block of placeholder tokens per image, all images of one size."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.base import IMAGE, Adapter, VisionTower
from vtw_search.tokens import Grid


def patch_grid(model: nn.Module) -> Grid:
    """Return the patches of an image of the tower's own size."""
    config: Any = model.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    return Grid(side, side)


def clip_tower(model: nn.Module) -> VisionTower | None:
    """Return the tower of a model whose projector takes one layer's patches, without the class token."""
    config: Any = model.config
    vision, layer = config.vision_config, config.vision_feature_layer
    if getattr(config, "vision_feature_select_strategy", None) != "default" or not isinstance(layer, int):
        return None
    class_tokens = int(vision.model_type == "clip_vision_model")
    if not class_tokens:
        return None  # `default` cuts off the first token, which is then a patch
    tower = model.get_submodule("model.vision_tower")
    return VisionTower(tower, vision.num_hidden_layers, class_tokens, layer, patch_grid(model))


class LlavaAdapter(Adapter):
    """Stock LLaVA: any CLIP-like tower, any Llama-like decoder."""

    class_name = "LlavaForConditionalGeneration"
    modalities = (IMAGE,)

    def plain_prompt(self, processor: Any, prompt: str, images: int) -> str:
        """Return LLaVA-1.5's prompt."""
        return "USER: " + "<image>\n" * images + prompt + " ASSISTANT:"

    def vision_tower(self, model: nn.Module) -> VisionTower | None:
        """Return the tower; None where the projector also takes the class token, or features of several layers."""
        return clip_tower(model)

    def block_grid(self, model: nn.Module) -> Grid:
        """Return the patches of an image."""
        return patch_grid(model)

    def projector_extra_rows(self, model: nn.Module) -> int:
        """Return 1 where the class token passes the projector with the patches."""
        config: Any = model.config
        return int(config.vision_feature_select_strategy == "full")
