"""LLaVA (Liu et al. 2023): one block of placeholder tokens per image, all images of one size."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE, VisionTower
from vtw_search.adapters.patches import clip_tower, patch_grid
from vtw_search.tokens import Grid


class LlavaAdapter(Adapter):
    """Stock LLaVA: any CLIP-like tower, any Llama-like decoder."""

    class_name = "LlavaForConditionalGeneration"
    modalities = (IMAGE,)

    def plain_prompt(self, processor: Any, prompt: str, images: int) -> str:
        """Return LLaVA-1.5's prompt."""
        return "USER: " + "<image>\n" * images + prompt + " ASSISTANT:"

    def vision_tower(self, model: nn.Module) -> VisionTower | None:
        """Return the tower; None where the projector also takes the class token, or where there is none."""
        return clip_tower(model)

    def block_grid(self, model: nn.Module) -> Grid:
        """Return the patches of an image."""
        return patch_grid(model)

    def projector_extra_rows(self, model: nn.Module) -> int:
        """Return 1 where the class token passes the projector with the patches."""
        config: Any = model.config
        return int(config.vision_feature_select_strategy == "full")
