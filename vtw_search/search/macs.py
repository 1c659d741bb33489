"""Macs of a policy's prefill on one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profilers.prefill import PrefillMacs
from vtw_search.evaluation.model import LoadedModel
from vtw_search.profiling.counting import CountedPrompt, count_prompt


class MacsCounter:
    """Counts prefills of one sample, whose tokens at each decoder layer a policy decides."""

    def __init__(self, loaded: LoadedModel, inputs: Mapping[str, Any]) -> None:
        self.counted: CountedPrompt = count_prompt(loaded.adapter, loaded.model, inputs)

    def count(self, tokens_per_layer: Sequence[int], scorer_macs: Sequence[int] = ()) -> PrefillMacs:
        """Return the macs of a prefill whose decoder layers receive `tokens_per_layer` tokens each."""
        return self.counted.cost.prefill_macs(tokens_per_layer, scorer_macs)
