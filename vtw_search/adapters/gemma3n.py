"""Gemma 3n (2025): alternating updates mix four copies of the hidden states around every layer (arXiv 2301.13310)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from profilers.shapes import LayerShape, Projection
from vtw_search.adapters.generic import GenericAdapter


class Gemma3nAdapter(GenericAdapter):
    """As any other family, except for what its layers cost."""

    class_name = "Gemma3nForConditionalGeneration"

    def layer_shape(self, layer: nn.Module, config: Any, number: int) -> LayerShape:
        """Count the router of the copies twice, to predict and to correct, and the mixing of the copies."""
        shape = super().layer_shape(layer, config, number)
        copies = config.altup_num_inputs
        routers = tuple(
            replace(each, calls=2) if each.name == "altup.modality_router" else each for each in shape.extras
        )
        mixing = Projection("altup.predict", copies, copies, calls=shape.hidden)
        return replace(shape, extras=(*routers, mixing))
