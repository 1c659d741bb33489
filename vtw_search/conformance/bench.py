"""Runs of a model that the contracts compare: under a policy, masked, cached and not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from vtw_search.adapters import Adapter
from vtw_search.conformance.probes import Inputs, Probe
from vtw_search.errors import PolicyError
from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy
from vtw_search.runtime import run_under_policy
from vtw_search.runtime.masking import masked_from
from vtw_search.tokens import Selection, everything, select, subject

STEPS = 8
WORDS = 4


class ContractError(Exception):
    """A contract does not hold, for a reason that is more than a number."""

    def __init__(self, reason: str, deviation: float | None = None) -> None:
        self.deviation = deviation
        super().__init__(reason)


class _Steered(LogitsProcessor):
    """Keeps generation away from placeholders, and along given tokens if there are any."""

    def __init__(self, banned: list[int], tokens: torch.Tensor | None) -> None:
        self.banned, self.tokens, self.step = banned, tokens, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, [token for token in self.banned if token < scores.shape[1]]] = float("-inf")
        if self.tokens is not None:
            forced = self.tokens[:, self.step, None]
            scores = torch.full_like(scores, float("-inf")).scatter(1, forced, 0.0)
            self.step += 1
        return scores


@dataclass(frozen=True)
class Generated:
    """Greedy tokens, (B, N), and the model's own logits at each step, (B, N, V)."""

    tokens: torch.Tensor
    logits: torch.Tensor


class Bench:
    """One model with its probes.

    Attributes:
        model, adapter, facts: what is checked.
        probes: on what; at least one with an image.
        tolerance: what deviations may be, relative to the spread of the logits.
        layers: the K that are checked.
    """

    def __init__(
        self, model: Any, adapter: Adapter, probes: list[Probe], tolerance: float, layers: list[int] | None = None
    ) -> None:
        self.model, self.adapter, self.probes, self.tolerance = model, adapter, probes, tolerance
        self.facts: ModelFacts = adapter.facts(model)
        self.stack: nn.ModuleList = adapter.decoder_layers(model)
        possible = self.facts.possible_layers
        self.layers = possible if layers is None else layers
        if not self.layers or not set(self.layers) <= set(possible):
            remedy = f"this model allows {possible[0]}..{possible[-1]}"
            raise PolicyError("the layers to check must be possible ones", value=layers, remedy=remedy)

    @property
    def visual_probes(self) -> list[Probe]:
        """The probes that have images."""
        return [probe for probe in self.probes if self.adapter.visual_mask(self.model, probe.inputs) is not None]

    def hidden(self, probe: Probe) -> torch.Tensor:
        """Return (B, T) bool, true at the visual tokens that withdrawal takes."""
        visual = self.adapter.visual_mask(self.model, probe.inputs)
        assert visual is not None
        return subject(visual, probe.real)

    def kept(self, probe: Probe) -> Selection:
        """Return what withdrawal keeps of the probe."""
        visual = self.hidden(probe)
        selection = select(probe.real & ~visual)
        return selection or everything(visual.shape[0], 0, visual.shape[1], visual.device)

    @contextmanager
    def under(self, policy: Policy) -> Iterator[None]:
        """Run under a policy."""
        with run_under_policy(self.model, self.adapter, policy):
            yield

    @contextmanager
    def masked(self, probe: Probe, layer: int) -> Iterator[None]:
        """Run at full length with the probe's visual tokens masked from `layer` on."""
        with masked_from(self.stack, layer, self.hidden(probe), self.adapter.layer_arguments):
            yield

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> torch.Tensor:
        """Return the logits of every position of a forward call without cache."""
        logits: torch.Tensor = self.model(**inputs, use_cache=False).logits
        return logits

    @torch.no_grad()
    def cache(self, inputs: Inputs) -> Any:
        """Return the cache that a prefill leaves."""
        cache = DynamicCache(config=self.model.config)
        self.model(**inputs, past_key_values=cache, use_cache=True)
        return cache

    @torch.no_grad()
    def second_turn(self, inputs: Inputs) -> torch.Tensor:
        """Return the logits, (B, V), behind a second turn on the cache of `inputs`: its last words again, in one call.

        `generate` numbers the turn's positions, which some families leave to it.
        """
        turn = {"input_ids": torch.cat([inputs["input_ids"], inputs["input_ids"][:, -WORDS:]], dim=1)}
        if "attention_mask" in inputs:
            turn["attention_mask"] = functional.pad(inputs["attention_mask"], (0, WORDS), value=1)
        output = self.model.generate(
            **turn, past_key_values=self.cache(inputs), max_new_tokens=1, min_new_tokens=1, do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        logits: torch.Tensor = output.logits[0]
        return logits

    @torch.no_grad()
    def generate(self, inputs: Inputs, tokens: torch.Tensor | None = None, cached: bool = True) -> Generated:
        """Generate `STEPS` tokens greedily, or along `tokens`, (B, STEPS)."""
        banned = [self.adapter.placeholder(self.model, modality) for modality in self._modalities()]
        output = self.model.generate(
            **inputs, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False, num_beams=1, use_cache=cached,
            logits_processor=LogitsProcessorList([_Steered(banned, tokens)]),
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        return Generated(output.sequences[:, -STEPS:], torch.stack(output.logits, dim=1))

    def _modalities(self) -> list[Any]:
        config = self.model.config
        return [
            modality
            for modality in self.adapter.modalities
            if any(getattr(config, name, None) is not None for name in modality.token_settings)
        ]
