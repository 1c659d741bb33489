"""ShieldGemma 2 (2025): a Gemma 3 with another head."""

from __future__ import annotations

from torch import nn

from profilers.shapes import ProjectorShape
from vtw_search.adapters.gemma3 import gemma3_projector_shape
from vtw_search.adapters.generic import GenericAdapter


class ShieldGemma2Adapter(GenericAdapter):
    """As any other family, except for its projector, which is Gemma 3's."""

    class_name = "ShieldGemma2ForImageClassification"

    def projector_shape(self, model: nn.Module) -> ProjectorShape:
        """Return Gemma 3's."""
        return gemma3_projector_shape(self.projector_parts(model), model)
