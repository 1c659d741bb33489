"""Every recipe on the reference model and on other families: it runs, or is refused with an alternative."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from vtw_search import Policy, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.errors import ConfigError, PolicyError, UnknownNameError
from vtw_search.evaluation.model import load_model
from vtw_search.facts import ModelFacts
from vtw_search.policies import ScorerChoice, Stage
from vtw_search.profiling.schedule import mean_over_depth, scorer_macs, tokens_per_layer, visual_counts
from vtw_search.recipes import RECIPES, find_recipe
from vtw_search.runtime import make_ready
from vtw_search.scorers import Shape
from vtw_search.search.space import candidates_of, make_space
from vtw_search.tokens import Grid, TokenLayout

FAMILIES = ("llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "internvl", "gemma3", "idefics3")


def default_of(name: str, facts: ModelFacts) -> Policy:
    recipe = find_recipe(name)
    policy = recipe.policy(facts, {key: value.default for key, value in recipe.parameters(facts).items()})
    assert policy is not None
    return policy


@pytest.fixture(scope="module")
def reference() -> ModelFacts:
    return load_model("reference", device="cpu").facts


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_on_the_reference_model(name: str, reference: ModelFacts) -> None:
    space = make_space(reference, {name: {}}, None)
    policies = list(space.policies())
    assert default_of(name, reference) in policies
    for policy in policies:
        make_ready(policy, reference)


def needs_what_is_missing(policy: Policy, facts: ModelFacts) -> bool:
    """Whether a stage acts before the decoder, or reads what this model does not have."""
    missing = set(facts.missing)
    for stage in policy.stages:
        scorer = stage.scorer.name if stage.scorer else ""
        needs = {"before_decoder"} if stage.site == "vision" else set()
        needs |= {"grids"} if stage.operator == "downsample" else set()
        needs |= {"vision"} if scorer in ("cls_attention", "vision_received", "cls_similarity") else set()
        needs |= {"class_token"} if scorer in ("cls_attention", "cls_similarity") else set()
        if needs & missing:
            return True
    return False


@pytest.mark.parametrize("family", FAMILIES)
def test_every_recipe_runs_on_a_family_or_says_what_else_to_do(family: str) -> None:
    tiny = find(family)
    model: Any = tiny.build()
    facts, inputs, ran = find_adapter(model).facts(model), tiny.inputs([("small",)]), []
    with torch.no_grad():
        full = model(**inputs, use_cache=False).logits.shape[1]
        for name in RECIPES:
            recipe = find_recipe(name)
            chosen = {key: value.default for key, value in recipe.parameters(facts).items()}
            policy = recipe.policy(facts, chosen)
            if policy is None:
                continue  # six layers are too few for its stages
            if needs_what_is_missing(policy, facts):
                with pytest.raises(PolicyError, match=r"cannot run on this .*; "), apply_policy(model, policy):
                    pass
                continue
            with apply_policy(model, policy):
                logits = model(**inputs, use_cache=False).logits
            assert logits.shape[1] < full
            assert torch.isfinite(logits).all()
            ran.append(name)
    assert {"vtw", "fastv", "random"} <= set(ran)
    assert ("himap" in ran) == (family != "qwen3_vl" or facts.first_layer < 4)
    assert ("vtc_cls" in ran) == (family in ("llava", "internvl"))
    assert ("fopru" in ran) == (family in ("llava", "internvl", "gemma3", "idefics3"))


def facts_of_llava(layers: int) -> ModelFacts:
    facts = load_model("reference", device="cpu").facts
    fingerprint = facts.fingerprint.model_copy(update={"num_layers": layers})
    return ModelFacts(fingerprint, layers, 1, layers, "sdpa", 24, {})


def test_published_values_are_the_defaults() -> None:
    facts = facts_of_llava(32)
    assert default_of("vtw", facts) == Policy.withdraw(16)
    assert default_of("fastv", facts).label() == "prune@2:0.5:text_to_visual-queries=last"
    himap = default_of("himap", facts)
    assert [(stage.layer, stage.keep) for stage in himap.stages] == [(2, 0.5), (8, 0.25)]
    assert visual_counts(himap, 576) == [288, 72]
    assert visual_counts(default_of("vtc_cls", facts), 576) == [128]
    assert visual_counts(default_of("fopru", facts), 576) == [144]
    assert [stage.layer for stage in default_of("pyramid", facts).stages] == [8, 16, 24]
    assert visual_counts(default_of("pyramid", facts), 576) == [288, 144, 72]


def test_what_leaves_before_the_decoder_may_keep_positions_or_not() -> None:
    facts = facts_of_llava(32)
    before = [name for name in RECIPES if default_of(name, facts).stages[0].site == "vision"]
    for name in before:
        baseline = name in ("random", "downsample")
        assert default_of(name, facts).stages[0].position == ("keep" if baseline else "recount")
        assert set(find_recipe(name).parameters(facts)["position"].values) == {"keep", "recount"}
        fixed = replace(facts, missing={"recount": "M-RoPE"})
        assert find_recipe(name).parameters(fixed)["position"].values == ("keep",)
    assert {"vtc_cls", "fopru", "image_text_interaction", "random", "downsample"} == set(before)
    inside = {"layer": 3, "keep": 0.5, "seed": 0}
    assert find_recipe("random").policy(facts, {**inside, "position": "recount"}) is None
    assert find_recipe("random").policy(facts, {**inside, "position": "keep"}) is not None


def test_mean_visual_tokens_over_depth() -> None:
    himap = default_of("himap", facts_of_llava(32))
    assert mean_over_depth(himap, 576, 32) == pytest.approx((2 * 576 + 6 * 288 + 24 * 72) / 32)
    # SGL's table: (K, r) = (19, 0.4) of 48 layers keeps 64 % over the depth.
    sgl = Stage(layer=19, operator="prune", keep=0.4, scorer=ScorerChoice(name="text_to_visual"))
    assert mean_over_depth(Policy(stages=(sgl,)), 1000, 48) / 1000 == pytest.approx(0.637, abs=5e-4)


def test_schedules_and_costs_of_choosing() -> None:
    row = torch.zeros(1, 651, dtype=torch.bool)
    row[:, 35:611] = True
    layout, facts = TokenLayout(row, torch.zeros_like(row)), facts_of_llava(32)
    himap = default_of("himap", facts)
    tokens = tokens_per_layer(himap, layout, 32)
    assert tokens == (651,) * 2 + (363,) * 6 + (147,) * 24
    macs = scorer_macs(himap, tokens, Shape(651, 576, 40, 4096))
    assert {layer: cost for layer, cost in enumerate(macs) if cost} == {1: 40 * 651 * 4096, 7: 288 * 363 * 4096}
    pooled = default_of("downsample", facts)
    assert tokens_per_layer(pooled, layout, 32, [Grid(24, 24)]) == (75 + 144,) * 32
    with pytest.raises(PolicyError, match="depends on grids"):
        tokens_per_layer(pooled, layout, 32)
    with pytest.raises(PolicyError, match="known from data alone"):
        tokens_per_layer(default_of("image_text_interaction", facts), layout, 32)


def test_spaces_take_values_of_the_user_and_refuse_what_is_not_there(reference: ModelFacts) -> None:
    space = make_space(reference, {"fastv": {"layer": 3, "keep": [0.5, 0.25]}, "vtw": {}}, (2, 4))
    labels = [policy.label() for policy in candidates_of(space)]
    assert labels[0] == "keep-all"
    assert set(labels[1:]) == {
        "withdraw@2", "withdraw@3", "withdraw@4",
        "prune@3:0.5:text_to_visual-queries=last", "prune@3:0.25:text_to_visual-queries=last",
    }  # fmt: skip
    with pytest.raises(UnknownNameError, match="did you mean 'himap'"):
        make_space(reference, {"himp": {}}, None)
    with pytest.raises(ConfigError, match="unknown parameter 'kep'"):
        make_space(reference, {"fastv": {"kep": 0.5}}, None)
    with pytest.raises(PolicyError, match=r"1\.\.12"):
        candidates_of(make_space(reference, {"fastv": {"layer": [3, 99]}}, None))
