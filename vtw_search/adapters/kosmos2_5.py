"""KOSMOS-2.5: no placeholder token; the processor marks the places of the image features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vtw_search.adapters.generic import GenericAdapter
from vtw_search.adapters.parts import Modality


class Kosmos2_5Adapter(GenericAdapter):  # noqa: N801 - the family's own name
    """Visual tokens are told by `image_embeds_position_mask`, (B, T), which is 1 there."""

    modalities = (Modality("image", (), ("flattened_patches", "image_embeds")),)

    def visual_mask(self, model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor | None:
        """Return (B, T) bool, or None when the call brings no image."""
        places, modality = inputs.get("image_embeds_position_mask"), self.modalities[0]
        if places is None or all(inputs.get(name) is None for name in modality.inputs):
            return None
        visual: torch.Tensor = places == 1
        return visual
