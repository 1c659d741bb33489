"""Several stages against the masked oracle, whose kept sets are worked out from eager attention maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from tests.runtime.masked_oracle import MaskedOracle
from vtw_search import Policy, Stage, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance.bench import Bench
from vtw_search.policies import ScorerChoice
from vtw_search.runtime.deviation import deviation

FAMILIES = ["llava", "qwen2_5_vl", "gemma3", "internvl", "paligemma", "idefics3", "mistral3", "qwen3_vl", "llava_next"]


def prune(layer: int, keep: float | int | str, scorer: str, **options: Any) -> Stage:
    return Stage(layer=layer, operator="prune", keep=keep, scorer=ScorerChoice(name=scorer, options=options))


PLANS = {
    "fastv": (prune(3, 0.5, "text_to_visual"),),
    "himap": (prune(3, 0.5, "text_to_visual", queries="instruction"), prune(4, 0.5, "visual_received")),
    "three stages": (
        prune(3, 0.5, "text_to_visual"),
        prune(4, 0.5, "visual_received"),
        Stage(layer=5, operator="withdraw"),
    ),
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", FAMILIES)
def test_stages_equal_the_masked_oracle(name: str, plan: str) -> None:
    family, policy = find(name), Policy(stages=PLANS[plan])
    eager, fused = family.build("eager"), family.build("sdpa")
    for probe in family_probes(family):
        bench = Bench(eager, find_adapter(eager), [probe], 1e-5)
        if not bench.visual_probes:
            continue
        logits, wanted = MaskedOracle(bench, probe.inputs).logits(policy)
        expected = logits[wanted]
        spread = float(expected[expected > torch.finfo(expected.dtype).min / 2].std())
        for model in (eager, fused):
            with apply_policy(model, policy), torch.no_grad():
                found = model(**probe.inputs, use_cache=False).logits
            assert found.shape == logits.shape
            assert float((found[wanted] - expected).abs().max()) <= 1e-5 * spread


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_on_the_cache_equals_generation_without_one(name: str) -> None:
    family, policy = find(name), Policy(stages=PLANS["three stages"])
    model = family.build()
    inputs = family_probes(family)[-2 if family.text_only else -1].inputs
    plain = Bench(model, find_adapter(model), family_probes(family), 1e-5)
    if deviation(plain.generate(inputs).logits, plain.generate(inputs, cached=False).logits) > 1e-5:
        pytest.skip(f"this release of transformers generates otherwise without a cache, without any policy: {name}")
    with apply_policy(model, policy):
        bench = Bench(model, find_adapter(model), family_probes(family), 1e-5)
        cached = bench.generate(inputs)
        uncached = bench.generate(inputs, cached.tokens, cached=False)
        cache = bench.cache(inputs)
        lengths = [layer.keys.shape[-2] for layer in cache.layers]
    assert deviation(cached.logits, uncached.logits) <= 1e-5
    whole = [length for length, layer in zip(lengths, cache.layers, strict=True) if not layer.is_sliding]
    assert whole == sorted(whole, reverse=True)
