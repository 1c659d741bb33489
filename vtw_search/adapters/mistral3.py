"""Mistral 3 with a Pixtral tower (2025): native resolution; the markers at the end of each patch row are text."""

from __future__ import annotations

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE


class Mistral3Adapter(Adapter):
    """Row markers stay, since they are ordinary tokens of the prompt."""

    class_name = "Mistral3ForConditionalGeneration"
    modalities = (IMAGE,)
