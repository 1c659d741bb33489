"""Macs and prefill time of candidates, on one representative sample."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from profilers.environment import read_machine
from profilers.memory import kv_cache_bytes
from profilers.prefill import PrefillMacs
from profilers.protocol import MAX_SECONDS, ProtocolSettings
from profilers.stopwatch import Call, Work, stopwatch_of
from profilers.timing import Compared, UnsteadyClockError, compare
from profilers.watch import watched
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.tasks import Sample
from vtw_search.operators import find_operator
from vtw_search.policies import Policy
from vtw_search.profiling.schedule import scorer_macs, scorer_shape, tokens_per_layer, visual_counts
from vtw_search.runtime import apply_policy
from vtw_search.search.macs import MacsCounter
from vtw_search.tokens import Grid, TokenLayout


@dataclass(frozen=True)
class Timing:
    """Times of a policy's prefill, in turn with those of keep-all.

    Attributes:
        compared: the times; None where none could be taken, as `problems` says.
        problems: why they should not be relied upon, or why there are none; empty if nothing speaks against them.
    """

    compared: Compared | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """Cost of one policy's prefill.

    Attributes:
        prompt_tokens, visual_tokens: of the sample, per row.
        macs: multiply-adds by part; where scores decide how many tokens stay, of the sample in the middle.
        macs_of_samples: total of every sample, where scores decide; else of the one.
        cache_of_samples: bytes of the key-value cache after the prefill, of the same samples.
        reference_cache: the same of keep-all on the one.
        timing: None when time was not asked for.
    """

    prompt_tokens: int
    visual_tokens: int
    macs: PrefillMacs
    macs_of_samples: tuple[int, ...]
    cache_of_samples: tuple[int, ...]
    reference_cache: int
    timing: Timing | None


def profile_identity(repeats: int, device: torch.device) -> dict[str, Any]:
    """Return what a profile depends on besides what is profiled; times depend on the machine, macs do not.

    Args:
        repeats: timed rounds; 0 for none.
        device: where prefills run.
    """
    return {"repeats": repeats, **(read_machine(device) if repeats else {})}


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
        "scorer_macs": macs.scorer,
        "macs": round(statistics.fmean(profile.macs_of_samples)),
        "macs_ratio": statistics.fmean(profile.macs_of_samples) / reference_macs,
        "macs_spread": statistics.pstdev(profile.macs_of_samples),
        "cache_bytes": round(statistics.fmean(profile.cache_of_samples)),
        "cache_ratio": statistics.fmean(profile.cache_of_samples) / profile.reference_cache,
    }
    return columns if timing is None else columns | _time_columns(timing)


def _time_columns(timing: Timing) -> dict[str, Any]:
    problems, compared = {"latency_problems": "; ".join(timing.problems) or None}, timing.compared
    if compared is None:
        return problems
    return problems | {
        "latency_ms": compared.candidate.p50_ms,
        "reference_latency_ms": compared.reference.p50_ms,
        "latency_ratio": compared.ratio.value,
        "latency_ratio_low": compared.ratio.low,
        "latency_ratio_high": compared.ratio.high,
        "latency_repeats": len(compared.candidate.values_ms),
    }


class Profiler:
    """Profiles policies on the sample whose prompt has the median length."""

    def __init__(
        self, loaded: LoadedModel, samples: Sequence[Sample], repeats: int, max_seconds: float = MAX_SECONDS
    ) -> None:
        self.loaded, self.repeats, self.max_seconds = loaded, repeats, max_seconds
        encoded = [self._encode(sample) for sample in samples[:64] if sample.images]
        encoded.sort(key=lambda inputs: inputs["input_ids"].shape[1])
        self.inputs = encoded[len(encoded) // 2]
        visual = loaded.adapter.visual_mask(loaded.model, self.inputs)
        assert visual is not None, "a sample with images has visual tokens"
        self.layout = TokenLayout(visual, torch.zeros_like(visual))
        self.shape = scorer_shape(loaded.adapter, loaded.model, visual)
        self._counter = MacsCounter(loaded, self.inputs)
        self._timings: dict[tuple[Any, ...], Timing] = {}

    def profile(self, policy: Policy, counts: Sequence[Sequence[int]] = (), *, timed: bool = True) -> Profile:
        """Count a policy's macs and, if that is wanted and repeats were asked for, time it against keep-all.

        Policies that let equally many tokens into every layer, chosen by the same scorers, do the same work and are
        timed once.

        Args:
            policy: what is profiled.
            counts: per sample, the visual tokens that each stage left; needed where the scores decide them.
            timed: whether to time.
        """
        visual = int(self.layout.visual.sum())
        left: Sequence[int] | None = None
        lefts: Sequence[Sequence[int] | None] = [None]
        if visual_counts(policy, visual, self._grids(policy)) is None:
            ordered = sorted(list(each) for each in counts)
            lefts, left = ordered, ordered[len(ordered) // 2]
        timing = self._timing(policy, left) if timed and self.repeats else None
        every = tuple(self.macs(policy, each).total for each in lefts)
        caches = tuple(self.cache_bytes(policy, each) for each in lefts)
        full = self.cache_bytes(Policy.keep_all())
        prompt = self.layout.visual.shape[1]
        return Profile(prompt, visual, self.macs(policy, left), every, caches, full, timing)

    def macs(self, policy: Policy, left: Sequence[int] | None = None) -> PrefillMacs:
        """Return the macs of a prefill; `left` as for `tokens_per_layer`."""
        tokens = self.tokens_per_layer(policy, left)
        return self._counter.count(tokens, scorer_macs(policy, tokens, self.shape))

    def cache_bytes(self, policy: Policy, left: Sequence[int] | None = None) -> int:
        """Return the bytes of keys and values that a prefill leaves; `left` as for `tokens_per_layer`."""
        tokens, shape = self.tokens_per_layer(policy, left), self._counter.counted.cost.shape
        return kv_cache_bytes(shape, tokens, generated=0, batch=1, value_bytes=self.loaded.model.dtype.itemsize)

    def tokens_per_layer(self, policy: Policy, left: Sequence[int] | None = None) -> list[int]:
        """Return how many tokens each decoder layer receives; `left` are measured counts, where scores decide them."""
        layers = self.loaded.facts.num_layers
        return list(tokens_per_layer(policy, self.layout, layers, self._grids(policy), left))

    def _grids(self, policy: Policy) -> list[Grid]:
        if not any(find_operator(stage.operator).keeps == "share" for stage in policy.stages):
            return []
        return self.loaded.adapter.grids(self.loaded.model, self.inputs, int(self.layout.visual.sum()))

    def _timing(self, policy: Policy, left: Sequence[int] | None) -> Timing:
        scorers = [stage.scorer for stage in policy.stages if stage.scorer is not None]
        schedule = (tuple(self.tokens_per_layer(policy, left)), *scorers)
        if schedule not in self._timings:
            self._timings[schedule] = self._time(policy)
        return self._timings[schedule]

    def _time(self, policy: Policy) -> Timing:
        reference, candidate = (self._prefill(each) for each in (Policy.keep_all(), policy))
        device = self.loaded.device
        settings = ProtocolSettings(self.repeats, min_seconds=0.0, max_seconds=self.max_seconds)
        try:
            with watched(device) as machine:
                works, watch = {"candidate": candidate}, stopwatch_of(device)
                compared = compare(reference, works, watch, settings, crowded=machine.crowded)["candidate"]
        except UnsteadyClockError as error:
            return Timing(None, (f"not timed: {error}",))
        return Timing(compared, (*machine.problems, *compared.problems))

    def _prefill(self, policy: Policy) -> Work:
        """Return the prefill of the sample; placing the policy on the model is no part of what is timed."""

        @contextmanager
        def work() -> Iterator[Call]:
            with torch.inference_mode(), apply_policy(self.loaded.model, policy):
                yield partial(self.loaded.model, **self.inputs, use_cache=True, logits_to_keep=1)

        return work

    def _encode(self, sample: Sample) -> dict[str, Any]:
        images = [image.open() for image in sample.images]
        inputs = self.loaded.adapter.encode(self.loaded.processor, [sample.prompt], [images])
        return {name: value.to(self.loaded.device) for name, value in inputs.items()}
