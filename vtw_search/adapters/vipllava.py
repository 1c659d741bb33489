"""ViP-LLaVA (Cai et al. 2024): LLaVA on features of several tower layers."""

from __future__ import annotations

from torch import nn

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE, VisionTower
from vtw_search.adapters.patches import clip_tower, patch_grid
from vtw_search.tokens import Grid


class VipLlavaAdapter(Adapter):
    """One block of placeholder tokens per image, all images of one size."""

    class_name = "VipLlavaForConditionalGeneration"
    modalities = (IMAGE,)

    def plain_prompt(self, processor: object, prompt: str, images: int) -> str:
        """Return the prompt of the released checkpoints."""
        return "###Human: " + "<image>\n" * images + prompt + "###Assistant:"

    def vision_tower(self, model: nn.Module) -> VisionTower | None:
        """Return the tower."""
        return clip_tower(model)

    def block_grid(self, model: nn.Module) -> Grid:
        """Return the patches of an image."""
        return patch_grid(model)
