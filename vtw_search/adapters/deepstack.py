"""Deepstack (Meng et al. 2024): features of further tower layers are added to the visual tokens between the first
decoder layers, at full length."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.base import Adapter


class DeepstackAdapter(Adapter):
    """Visual tokens may leave once the last features have been added to them."""

    def first_layer(self, model: nn.Module) -> int:
        """Return the number of decoder layers after which features are added."""
        config: Any = model.config
        parts = (config, getattr(config, "vision_config", None))
        places = [getattr(part, "deepstack_visual_indexes", None) for part in parts]
        return max(1, *(len(indexes or ()) for indexes in places))
