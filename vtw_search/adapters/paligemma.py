"""PaliGemma (Beyer et al. 2024): the whole prompt attends in both directions, only the answer is causal."""

from __future__ import annotations

from torch import nn

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE, VisionTower
from vtw_search.adapters.patches import patch_grid, siglip_tower
from vtw_search.tokens import Grid


class PaliGemmaAdapter(Adapter):
    """The prefix mask is at full length and is cut with the tokens."""

    class_name = "PaliGemmaForConditionalGeneration"
    modalities = (IMAGE,)
    needs_image = True

    def plain_prompt(self, processor: object, prompt: str, images: int) -> str:
        """Return the prompt; the checkpoints have no chat template."""
        return "<image>" * images + prompt

    def block_grid(self, model: nn.Module) -> Grid:
        """Return the patches of an image."""
        return patch_grid(model)

    def vision_tower(self, model: nn.Module) -> VisionTower:
        """Return the tower."""
        return siglip_tower(model, "vision_tower")
