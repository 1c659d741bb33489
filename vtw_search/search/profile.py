"""Macs and prefill time of candidates, on one representative sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from profilers.prefill import PrefillMacs
from profilers.timing import PairTiming, time_pair
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.profiling.schedule import tokens_per_layer
from vtw_search.runtime import apply_policy
from vtw_search.search.macs import MacsCounter
from vtw_search.tokens import TokenLayout


@dataclass(frozen=True)
class Profile:
    """Cost of one policy's prefill.

    Attributes:
        prompt_tokens, visual_tokens: of the sample, per row.
        macs: multiply-adds by part.
        timing: interleaved with the reference, or None when time was not asked for.
    """

    prompt_tokens: int
    visual_tokens: int
    macs: PrefillMacs
    timing: PairTiming | None


def profile_columns(profile: Profile, reference_macs: int) -> dict[str, Any]:
    """Return a profile as columns of a measurement."""
    macs, timing = profile.macs, profile.timing
    columns: dict[str, Any] = {
        "prompt_tokens": profile.prompt_tokens,
        "visual_tokens": profile.visual_tokens,
        "vision_macs": macs.vision,
        "projector_macs": macs.projector,
        "decoder_macs": macs.decoder,
        "lm_head_macs": macs.lm_head,
        "macs": macs.total,
        "macs_ratio": macs.total / reference_macs,
    }
    if timing is None:
        return columns
    return columns | {
        "latency_ms": timing.candidate_median_ms,
        "reference_latency_ms": timing.reference_median_ms,
        "latency_ratio": timing.ratio,
        "latency_ratio_spread": timing.ratio_spread,
        "latency_repeats": len(timing.candidate_ms),
    }


class Profiler:
    """Profiles policies on the sample whose prompt has the median length."""

    def __init__(self, loaded: LoadedModel, samples: Sequence[Sample], repeats: int, warmup: int) -> None:
        self.loaded, self.repeats, self.warmup = loaded, repeats, warmup
        encoded = [self._encode(sample) for sample in samples[:64] if sample.images]
        encoded.sort(key=lambda inputs: inputs["input_ids"].shape[1])
        self.inputs = encoded[len(encoded) // 2]
        visual = loaded.adapter.visual_mask(loaded.model, self.inputs)
        assert visual is not None, "a sample with images has visual tokens"
        self.layout = TokenLayout(visual, torch.zeros_like(visual))
        self._counter = MacsCounter(loaded, self.inputs)
        self._timings: dict[tuple[int, ...], PairTiming] = {}

    def profile(self, policy: Policy, *, timed: bool = True) -> Profile:
        """Count a policy's macs and, if that is wanted and repeats were asked for, time it against keep-all.

        Policies that let equally many tokens into every layer do the same work, and are timed once.
        """
        timing = self._timing(policy) if timed and self.repeats else None
        visual = int(self.layout.visual.sum())
        return Profile(self.layout.visual.shape[1], visual, self.macs(policy), timing)

    def macs(self, policy: Policy) -> PrefillMacs:
        """Return the macs of a prefill."""
        return self._counter.count(self.tokens_per_layer(policy))

    def tokens_per_layer(self, policy: Policy) -> list[int]:
        """Return how many tokens each decoder layer receives."""
        return list(tokens_per_layer(policy, self.layout, self.loaded.facts.num_layers))

    def _timing(self, policy: Policy) -> PairTiming:
        schedule = tuple(self.tokens_per_layer(policy))
        if schedule not in self._timings:
            self._timings[schedule] = self._time(policy)
        return self._timings[schedule]

    def _time(self, policy: Policy) -> PairTiming:
        reference, candidate = (partial(self._prefill, each) for each in (Policy.keep_all(), policy))
        device = self.loaded.device
        return time_pair(reference, candidate, device=device, repeats=self.repeats, warmup=self.warmup)

    @torch.inference_mode()
    def _prefill(self, policy: Policy) -> object:
        with apply_policy(self.loaded.model, policy):
            return self.loaded.model(**self.inputs, use_cache=True, logits_to_keep=1)

    def _encode(self, sample: Sample) -> dict[str, Any]:
        images = [image.open() for image in sample.images]
        inputs = self.loaded.adapter.encode(self.loaded.processor, [sample.prompt], [images])
        return {name: value.to(self.loaded.device) for name, value in inputs.items()}
