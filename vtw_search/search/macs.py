"""Macs of a policy's prefill: composed from parts on the meta device, or counted on the loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from profilers.aten import UncountedOperatorError
from profilers.macs import PrefillMacs, count_macs, count_macs_outside
from vtw_search.adapters import MacsModel, ModuleCall
from vtw_search.errors import ModelError
from vtw_search.evaluation.model import LoadedModel
from vtw_search.policies import Policy
from vtw_search.runtime import apply_policy
from vtw_search.runtime.capture import by_name, captured


class MacsCounter(Protocol):
    """Counts the macs of policies on one sample."""

    def count(self, policy: Policy, tokens: list[int]) -> PrefillMacs:
        """Return the macs of a policy whose decoder layers receive `tokens` tokens each."""


class PartsCounter:
    """For families whose adapter knows the parts of a prefill; nothing is computed for the decoder."""

    def __init__(self, parts: MacsModel, images: int) -> None:
        self.parts, self.images = parts, images
        self._layers: dict[int, int] = {}

    def count(self, policy: Policy, tokens: list[int]) -> PrefillMacs:
        """Return the macs of a policy whose decoder layers receive `tokens` tokens each."""
        layers = tuple(self._layer(count) for count in tokens)
        vision, projector = self.parts.vision(self.images), self.parts.projector(self.images)
        return PrefillMacs(_count(vision), _count(projector), layers, _count(self.parts.lm_head()))

    def _layer(self, tokens: int) -> int:
        # All decoder layers of these families have one shape, so that the first stands for all.
        if tokens not in self._layers:
            self._layers[tokens] = _count(self.parts.decoder_layer(0, tokens))
        return self._layers[tokens]


class TracedCounter:
    """For all other families: the calls that decoder layers receive under the policy are counted on the loaded model.

    What is neither decoder layer nor output projection (tower, projector, position encodings) is counted as `vision`.
    """

    def __init__(self, loaded: LoadedModel, inputs: Mapping[str, torch.Tensor]) -> None:
        self.loaded, self.inputs = loaded, inputs
        self.stack = loaded.adapter.decoder_layers(loaded.model)
        self._layers: dict[tuple[int, int], int] = {}
        self._outside: tuple[int, int] | None = None

    def count(self, policy: Policy, tokens: list[int]) -> PrefillMacs:
        """Return the macs of a policy whose decoder layers receive `tokens` tokens each, which is made sure of."""
        missing = [place for place in enumerate(tokens) if place not in self._layers]
        if missing:
            with apply_policy(self.loaded.model, policy), captured(self.stack) as calls, torch.no_grad():
                self.loaded.model(**self.inputs, use_cache=False)
            for number, count in missing:
                args, kwargs = calls[number][0]
                states = next(iter(by_name(self.stack[number], calls[number][0]).values()))
                assert states.shape[-2] == count, f"layer {number} got {states.shape[-2]} tokens, not {count}"
                self._layers[number, count] = _count(ModuleCall(self.stack[number], args, kwargs))
        if self._outside is None:
            self._outside = self._outside_of_layers()
        layers = tuple(self._layers[place] for place in enumerate(tokens))
        return PrefillMacs(self._outside[0], 0, layers, self._outside[1])

    def _outside_of_layers(self) -> tuple[int, int]:
        """Return the macs outside decoder layers and output projection, and those of the projection at one position."""
        model = self.loaded.model
        head = model.get_output_embeddings()
        outside = count_macs_outside(model, [*self.stack, head], **self.inputs, use_cache=False)
        states = torch.zeros(1, 1, head.in_features, device=head.weight.device, dtype=head.weight.dtype)
        return outside, _count(ModuleCall(head, (states,), {}))


def macs_counter(loaded: LoadedModel, inputs: Mapping[str, Any]) -> MacsCounter:
    """Return the counter for a model and the inputs of one sample."""
    parts = loaded.adapter.macs_model(loaded.model)
    return TracedCounter(loaded, inputs) if parts is None else PartsCounter(parts, inputs["pixel_values"].shape[0])


def _count(call: ModuleCall) -> int:
    try:
        return count_macs(call.module, *call.args, **call.kwargs).total
    except UncountedOperatorError as error:
        raise ModelError(f"the macs of {type(call.module).__name__} cannot be counted", remedy=str(error)) from error
