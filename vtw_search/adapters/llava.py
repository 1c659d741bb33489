"""LLaVA (Liu et al. 2023): one block of placeholder tokens per image, all images of one size."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from vtw_search.adapters.base import IMAGE, Adapter, MacsModel, ModuleCall, VisionTower
from vtw_search.tokens import Grid


class LlavaMacsModel:
    """Parts of a LLaVA prefill: decoder, projector and head on the meta device, the tower as it is loaded.

    The tower stays where it is because a convolution cannot be traced on meta tensors (torch 2.13).
    """

    def __init__(self, model: nn.Module) -> None:
        self._config: Any = model.config
        self._tower = model.get_submodule("model.vision_tower")
        with torch.device("meta"):
            self._model = AutoModelForImageTextToText.from_config(self._config).eval()  # type: ignore[no-untyped-call]

    def vision(self, images: int) -> ModuleCall:
        """Vision tower on `images` images of the tower's own size."""
        vision, like = self._config.vision_config, next(self._tower.parameters())
        pixels = like.new_zeros(images, vision.num_channels, vision.image_size, vision.image_size)
        return ModuleCall(self._tower, (pixels,), {})

    def projector(self, images: int) -> ModuleCall:
        """Projector on the patch features; the class token was cut off unless the strategy is `full`."""
        vision = self._config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        patches += self._config.vision_feature_select_strategy == "full"
        projector = self._model.model.multi_modal_projector
        return ModuleCall(projector, (torch.empty(images, patches, projector.linear_1.in_features, device="meta"),), {})

    def decoder_layer(self, layer: int, tokens: int) -> ModuleCall:
        """Decoder layer `layer` on `tokens` tokens, causal, without cache."""
        decoder = self._model.model.language_model
        hidden = torch.empty(1, tokens, self._config.text_config.hidden_size, device="meta")
        positions = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        rotary = decoder.rotary_emb(hidden, position_ids=positions)
        return ModuleCall(decoder.layers[layer], (hidden,), {"position_embeddings": rotary, "attention_mask": None})

    def lm_head(self) -> ModuleCall:
        """Output projection of the last position."""
        return ModuleCall(
            self._model.lm_head, (torch.empty(1, 1, self._config.text_config.hidden_size, device="meta"),), {}
        )


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

    def macs_model(self, model: nn.Module) -> MacsModel:
        """Return the parts of `model`'s prefill."""
        return LlavaMacsModel(model)
