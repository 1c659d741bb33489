"""Ernie 4.5 VL (2025): text and visual tokens are sent to experts of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from profilers.shapes import LayerShape
from vtw_search.adapters.generic import GenericAdapter


class Ernie4_5VLMoeAdapter(GenericAdapter):  # noqa: N801 - the family's own name
    """As any other family, except for which tokens its experts take."""

    class_name = "Ernie4_5_VLMoeForConditionalGeneration"

    def layer_shape(self, layer: nn.Module, config: Any, number: int) -> LayerShape:
        """Give each mixture its kind of token; the module lists the one of the text first."""
        shape = super().layer_shape(layer, config, number)
        if not shape.experts:
            return shape
        text, visual = shape.experts
        return replace(shape, experts=(replace(text, group="text"), replace(visual, group="visual")))

    def expert_visual_mask(self, model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return the routing that the processor made: the markers of an image go with it, and never leave."""
        mask: torch.Tensor = inputs["moe_mm_token_type_ids"].bool()
        return mask
