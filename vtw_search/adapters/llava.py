"""LLaVA (Liu et al. 2023): one block of placeholder tokens per image, all images of one size."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.base import IMAGE, Adapter


class LlavaAdapter(Adapter):
    """Stock LLaVA: any CLIP-like tower, any Llama-like decoder."""

    class_name = "LlavaForConditionalGeneration"
    modalities = (IMAGE,)

    def plain_prompt(self, processor: Any, prompt: str, images: int) -> str:
        """Return LLaVA-1.5's prompt."""
        return "USER: " + "<image>\n" * images + prompt + " ASSISTANT:"

    def projector_extra_rows(self, model: nn.Module) -> int:
        """Return 1 where the class token passes the projector with the patches."""
        config: Any = model.config
        return int(config.vision_feature_select_strategy == "full")
