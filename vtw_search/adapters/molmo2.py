"""Molmo 2 (2025): crops and frames come as rows of flattened patches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from profilers.shapes import Grid
from vtw_search.adapters.generic import GenericAdapter


class Molmo2Adapter(GenericAdapter):
    """As any other family, except for how its images are cut."""

    class_name = "Molmo2ForConditionalGeneration"

    def image_grids(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Grid]:
        """Return one square grid per crop or frame; a call has images or videos, not both."""
        pictures = inputs.get("pixel_values")
        crops, patches, _ = (inputs["pixel_values_videos"] if pictures is None else pictures).shape
        return [(math.isqrt(patches), math.isqrt(patches))] * int(crops)
