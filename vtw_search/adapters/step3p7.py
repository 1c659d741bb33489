"""Step 3.7 (2026): one global view and local crops of another size, and convolutions that merge patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from profilers.shapes import Grid, ProjectorShape
from vtw_search.adapters.generic import GenericAdapter
from vtw_search.adapters.towers import COUNTED_BY_RUNNING
from vtw_search.errors import ModelError


class Step3p7Adapter(GenericAdapter):
    """As any other family, except for how its images are cut and merged."""

    class_name = "Step3p7ForConditionalGeneration"

    def image_grids(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Grid]:
        """Return the grids of the global views, then those of the crops."""
        crops = {"pixel_values": inputs.get("pixel_values_local")}
        return super().image_grids(model, inputs) + super().image_grids(model, crops)

    def projector_shape(self, model: nn.Module) -> ProjectorShape:
        """Refuse: overlapping convolutions stand between the tower and the projector."""
        raise ModelError(
            "a projector must be matrices that meet every visual token", value="overlapping convolutions",
            remedy=COUNTED_BY_RUNNING,
        )  # fmt: skip
