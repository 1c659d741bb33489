"""Layer-tokens of the one pass: a formula on the trie against a loop over layers, and against the pass itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vtw_search import Policy, Stage
from vtw_search.engine import Extent, LayerTokens, one_pass, pass_cost
from vtw_search.engine.branches import Branch
from vtw_search.engine.one_pass import Prompt, run_one_pass
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import digits
from vtw_search.facts import ModelFacts
from vtw_search.policies import ScorerChoice
from vtw_search.runtime import make_ready

LAYERS = 12


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


def stage(layer: int, keep: float) -> Stage:
    if keep == 0:
        return Stage(layer=layer, operator="withdraw")
    return Stage(layer=layer, operator="prune", keep=keep, scorer=ScorerChoice(name="uniform", options={}))


def left_of(policy: Policy, visual: int) -> list[int]:
    """Visual tokens after each stage."""
    counts = [visual]
    for each in policy.stages:
        counts.append(0 if each.keep is None else round(float(each.keep) * counts[-1]))
    return counts[1:]


def by_layer(policies: Sequence[Policy], left: Sequence[Sequence[float]], extent: Extent) -> LayerTokens:
    """Layer by layer, every distinct sequence of stages that has acted is one branch."""
    branches = 0.0
    for layer in range(LAYERS):
        there = {}
        for policy, counts in zip(policies, left, strict=True):
            acted = tuple(each for each in policy.stages if each.layer <= layer)
            if acted:
                there[acted] = extent.text + counts[len(acted) - 1]
        branches += sum(there.values())
    return LayerTokens(LAYERS * (extent.shared + extent.text + extent.visual), branches)


stages = st.dictionaries(st.integers(1, LAYERS - 1), st.sampled_from([0.5, 0.25]), max_size=3)


@st.composite
def some_policies(draw: st.DrawFn) -> list[Policy]:
    found = [Policy.keep_all()]
    for chosen in draw(st.lists(stages, max_size=8)):
        places = [stage(layer, keep) for layer, keep in sorted(chosen.items())]
        end = draw(st.integers(1, LAYERS - 1))
        if draw(st.booleans()) and all(end > each.layer for each in places):
            places.append(stage(end, 0))
        found.append(Policy(stages=tuple(places)))
    return found


@given(some_policies(), st.integers(0, 5), st.integers(1, 9), st.integers(4, 64))
def test_the_formula_equals_a_loop_over_layers(
    loaded: LoadedModel, policies: list[Policy], shared: int, text: int, visual: int
) -> None:
    extent, left = Extent(shared, text, visual), [left_of(policy, visual) for policy in policies]
    ready = [make_ready(policy, loaded.facts) for policy in policies]
    assert pass_cost(ready, left, extent, LAYERS) == by_layer(policies, left, extent)


def test_costs_add_up() -> None:
    one = LayerTokens(3, 4)
    assert (one + one.times(2)) == LayerTokens(9, 12)
    assert one.total == 7


def sharing(facts: ModelFacts) -> list[Policy]:
    first = stage(2, 0.5)
    return [
        Policy.keep_all(), Policy.withdraw(1), Policy.withdraw(9), Policy(stages=(first,)),
        Policy(stages=(first, stage(5, 0.5))), Policy(stages=(first, stage(5, 0.5), stage(7, 0))),
        Policy(stages=(first, stage(8, 0))),
    ]  # fmt: skip


def test_the_formula_equals_what_the_pass_steps(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own branches are counted as they go through a layer."""
    sample = next(iter(digits.load_pool("holdout")))
    inputs = loaded.adapter.encode(loaded.processor, [sample.prompt], [[image.open() for image in sample.images]])
    visual = loaded.adapter.visual_mask(loaded.model, inputs)
    assert visual is not None
    real = torch.ones_like(visual)
    prompt, stepped = Prompt(inputs, visual, ~real, real, 1), [0]
    original = one_pass.step

    def counted(branches: Sequence[Branch], *rest: Any) -> None:
        stepped[0] += sum(branch.present.columns.shape[1] for branch in branches)
        original(branches, *rest)

    monkeypatch.setattr(one_pass, "step", counted)
    policies = sharing(loaded.facts)
    ready = [make_ready(policy, loaded.facts) for policy in policies]
    outcomes = run_one_pass(loaded.model, loaded.adapter, prompt, ready)
    left = [[0]] * len(policies)
    for outcome in outcomes:
        for number in outcome.candidates:
            left[number] = [int(counts[0]) for counts in outcome.visual_left]
    shared, total = int(visual[0].int().argmax()), int(visual.shape[1])
    extent = Extent(shared, total - shared - int(visual.sum()), int(visual.sum()))
    assert pass_cost(ready, left, extent, LAYERS) == LayerTokens(LAYERS * total, stepped[0])
