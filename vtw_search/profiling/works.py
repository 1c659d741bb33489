"""What is timed of a model in a regime: its vision part, its prefill and its decode steps, with and without a policy.

Prompts are random embeddings, since no time depends on what they say, and image features are in them already, so that
the vision part can be timed apart. The reference runs without hooks and with its best attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from profilers.memory import PeakMemory, cache_bytes, peak_memory
from profilers.regimes import Regime
from profilers.stopwatch import Call, Work
from vtw_search.adapters import Adapter, tower_inputs
from vtw_search.policies import Policy
from vtw_search.profiling.vision import images_of_a_row, vision_parts
from vtw_search.runtime import run_under_policy
from vtw_search.tokens import TokenLayout

_BEST_ATTENTION = "sdpa"


class RegimeWorks:
    """The works of one model, policy and regime.

    Args:
        adapter, model: the model is in evaluation mode on its device.
        policy: of the candidate.
        regime: how many rows and tokens.
    """

    def __init__(self, adapter: Adapter, model: Any, policy: Policy, regime: Regime) -> None:
        self.adapter, self.model, self.policy, self.regime = adapter, model, policy, regime
        layout = self.layout_of(regime)
        length = layout.visual.shape[1]
        self._visual = layout.visual.expand(regime.batch, -1).to(model.device)
        hidden = model.config.get_text_config(decoder=True).hidden_size
        generator = torch.Generator().manual_seed(0)
        embeds = torch.randn(1, length, hidden, generator=generator).expand(regime.batch, -1, -1)
        self._embeds = embeds.to(model.device, model.dtype)
        self._token = torch.full((regime.batch, 1), 1, device=model.device)

    @staticmethod
    def layout_of(regime: Regime) -> TokenLayout:
        """Return where a row's visual tokens are: between the two halves of its text."""
        before, length = regime.prompt_tokens // 2, regime.visual_tokens + regime.prompt_tokens
        visual = torch.zeros(1, length, dtype=torch.bool)
        visual[:, before : before + regime.visual_tokens] = True
        return TokenLayout(visual, torch.zeros_like(visual))

    def prefill(self, under_policy: bool) -> Work:
        """Return the decoder on the whole prompt, up to the logits of the first answer token."""

        @contextmanager
        def work() -> Iterator[Call]:
            with self._side(under_policy):
                yield self._prefill

        return work

    def decode(self, under_policy: bool) -> Work:
        """Return the decode steps after the first answer token; the prefill before them is not timed."""

        @contextmanager
        def work() -> Iterator[Call]:
            with self._side(under_policy):
                cache = self._prefill()
                yield lambda: self._decode(cache)

        return work

    def vision(self) -> Work | None:
        """Return the tower on the images of all rows; None where it cannot be called on its own.

        A projector outside of the tower is not in it: it costs the same on both sides, and little.
        """
        parts = vision_parts(self.adapter, self.model)
        if parts is None:
            return None
        tower, config = self.adapter.tower(self.model), self.model.config.vision_config
        grids = images_of_a_row(self.adapter, self.model, parts[1], self.regime.visual_tokens) * self.regime.batch
        inputs = tower_inputs(tower, config, grids, str(self.model.device))
        inputs = {name: _as(value, self.model.dtype) for name, value in inputs.items()}

        @contextmanager
        def work() -> Iterator[Call]:
            with torch.inference_mode():
                yield lambda: tower(**inputs)

        return work

    def memory(self, under_policy: bool) -> tuple[PeakMemory, int]:
        """Return the peaks of one whole answer, and the bytes that its cache holds in the end."""
        with self._side(under_policy), peak_memory(self.model.device) as peak:
            cache = self._prefill()
            self._decode(cache)
            held = cache_bytes(cache)
        return peak, held

    @contextmanager
    def _side(self, under_policy: bool) -> Iterator[None]:
        with torch.inference_mode():
            if not under_policy:
                with _attention(self.model, _BEST_ATTENTION):
                    yield
                return
            # How long a removal takes does not depend on whether it is right, so that no certificate is asked for.
            with run_under_policy(self.model, self.adapter, self.policy) as active:
                active.mark_visual(self._visual)
                yield

    def _prefill(self) -> Any:
        return self.model(inputs_embeds=self._embeds, use_cache=True, logits_to_keep=1).past_key_values

    def _decode(self, cache: Any) -> None:
        for _ in range(self.regime.output_tokens - 1):
            self.model(input_ids=self._token, past_key_values=cache, use_cache=True, logits_to_keep=1)


@contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    before = model.config._attn_implementation
    if before == name:
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _as(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if value.is_floating_point() else value
