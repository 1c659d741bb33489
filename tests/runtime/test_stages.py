"""Several stages against the masked oracle, whose kept sets are worked out from eager attention maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from vtw_search import Policy, Stage, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance.bench import Bench, deviation
from vtw_search.policies import ScorerChoice
from vtw_search.runtime.masking import masked_from
from vtw_search.runtime.slicing import gather_tokens
from vtw_search.tokens import Selection, select

FAMILIES = ["llava", "qwen2_5_vl", "gemma3", "internvl", "paligemma", "idefics3", "mistral3", "qwen3_vl", "llava_next"]
Maps = Sequence[torch.Tensor]
Score = Callable[[Maps, int, torch.Tensor, torch.Tensor], torch.Tensor]


def prune(layer: int, keep: float | int | str, scorer: str, **options: Any) -> Stage:
    return Stage(layer=layer, operator="prune", keep=keep, scorer=ScorerChoice(name=scorer, options=options))


def last_row(maps: Maps, layer: int, visual: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return maps[layer - 1].mean(dim=1)[:, -1]


def instruction_rows(maps: Maps, layer: int, visual: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    scores = torch.zeros(visual.shape)
    for row in range(len(visual)):
        last = int(visual[row].nonzero()[-1]) if visual[row].any() else -1
        for query in range(last + 1, visual.shape[1]):
            if real[row, query]:
                scores[row] += maps[layer - 1][row].mean(dim=0)[query]
    return scores


def received(maps: Maps, layer: int, visual: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bq,bqk->bk", visual.float(), maps[layer - 1].mean(dim=1))


def best(scores: torch.Tensor, visual: torch.Tensor, share: float) -> torch.Tensor:
    """Return which visual tokens stay, row by row, with ties to the earlier one."""
    kept = torch.zeros_like(visual)
    for row in range(len(visual)):
        columns = visual[row].nonzero()[:, 0].tolist()
        wanted = max(1, int(share * len(columns) + 0.5)) if columns else 0
        kept[row, sorted(columns, key=lambda column: (-float(scores[row, column]), column))[:wanted]] = True
    return kept


@torch.no_grad()
def masked_run(
    bench: Bench, inputs: Any, stages: Sequence[tuple[int, Score | None]]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return full-length logits with what left masked, and what each stage keeps of the visual tokens."""
    visual = bench.adapter.visual_mask(bench.model, inputs)
    arguments, real = bench.adapter.layer_arguments, inputs["attention_mask"].bool()
    left, kept = visual, []
    with ExitStack() as stack:
        for layer, score in stages:
            maps = bench.model(**inputs, use_cache=False, output_attentions=True).attentions
            stays = torch.zeros_like(left) if score is None else best(score(maps, layer, left, real), left, 0.5)
            # Contexts add up: what left before stays hidden.
            stack.enter_context(masked_from(bench.stack, layer, left & ~stays, arguments))
            left = stays
            kept.append(stays)
        logits = bench.model(**inputs, use_cache=False).logits
    return logits, kept


def shortened(text: torch.Tensor, kept: Sequence[torch.Tensor]) -> Selection:
    """Return which columns are left after all stages, and where shorter rows were filled up."""
    columns = torch.arange(text.shape[1]).expand(text.shape)
    left = Selection(columns, None)
    for stays in kept:
        there = torch.ones_like(left.index, dtype=torch.bool) if left.filler is None else ~left.filler
        chosen = select((text | stays).gather(1, left.index) & there)
        if chosen is not None:
            left = Selection(left.index.gather(1, chosen.index), chosen.filler)
    return left


PLANS: dict[str, list[tuple[int, Score | None, Stage]]] = {
    "fastv": [(3, last_row, prune(3, 0.5, "text_to_visual"))],
    "himap": [
        (3, instruction_rows, prune(3, 0.5, "text_to_visual", queries="instruction")),
        (4, received, prune(4, 0.5, "visual_received")),
    ],
    "three stages": [
        (3, last_row, prune(3, 0.5, "text_to_visual")),
        (4, received, prune(4, 0.5, "visual_received")),
        (5, None, Stage(layer=5, operator="withdraw")),
    ],
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", FAMILIES)
def test_stages_equal_the_masked_oracle(name: str, plan: str) -> None:
    family, policy = find(name), Policy(stages=tuple(stage for _, _, stage in PLANS[plan]))
    eager, fused = family.build("eager"), family.build("sdpa")
    for probe in family_probes(family):
        bench = Bench(eager, find_adapter(eager), [probe], 1e-5)
        if not bench.visual_probes:
            continue
        logits, kept = masked_run(bench, probe.inputs, [(layer, score) for layer, score, _ in PLANS[plan]])
        visual = bench.hidden(probe)
        selection = shortened(~visual & probe.real, kept)
        wanted = torch.ones_like(selection.index, dtype=torch.bool) if selection.filler is None else ~selection.filler
        expected = gather_tokens(logits, selection.index, -2)[wanted]
        spread = float(expected[expected > torch.finfo(expected.dtype).min / 2].std())
        for model in (eager, fused):
            with apply_policy(model, policy), torch.no_grad():
                found = model(**probe.inputs, use_cache=False).logits
            assert found.shape[:2] == selection.index.shape
            assert float((found[wanted] - expected).abs().max()) <= 1e-5 * spread


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_on_the_cache_equals_generation_without_one(name: str) -> None:
    family, policy = find(name), Policy(stages=tuple(stage for _, _, stage in PLANS["three stages"]))
    model = family.build()
    inputs = family_probes(family)[-2 if family.text_only else -1].inputs
    with apply_policy(model, policy):
        bench = Bench(model, find_adapter(model), family_probes(family), 1e-5)
        cached = bench.generate(inputs)
        uncached = bench.generate(inputs, cached.tokens, cached=False)
        cache = bench.cache(inputs)
        lengths = [layer.keys.shape[-2] for layer in cache.layers]
    assert deviation(cached.logits, uncached.logits) <= 1e-5
    whole = [length for length, layer in zip(lengths, cache.layers, strict=True) if not layer.is_sliding]
    assert whole == sorted(whole, reverse=True)
