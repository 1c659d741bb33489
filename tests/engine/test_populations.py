"""Populations of candidates in one pass, many passes in one process: each candidate equals `apply_policy`.

Branches come and go within a pass, and so do the objects that stand for their tokens: whatever is remembered of one of
them may not be taken for another's.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import vtw_search
from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from tests.conftest import make_inputs, make_tiny_llava
from tests.engine.populations import random_policies
from vtw_search.adapters import Adapter, find_adapter
from vtw_search.engine.one_pass import Prompt, logits_of, run_one_pass
from vtw_search.errors import RuntimeUseError
from vtw_search.operators import NOTHING_ASKED, OPERATORS, Request
from vtw_search.policies import Policy, ScorerChoice, Stage
from vtw_search.profiling.schedule import tokens_per_layer, visual_counts
from vtw_search.runtime import make_ready, run_under_policy
from vtw_search.runtime.deviation import deviation
from vtw_search.scorers import SCORERS
from vtw_search.scorers.base import PlainScorer, View
from vtw_search.search.proxy import kept_shares, sweep_of
from vtw_search.tokens import TokenLayout

FAMILIES = ("llava", "qwen2_5_vl", "internvl", "gemma3", "idefics3")
Inputs = Mapping[str, Any]
# Logits at the last two positions and visual tokens left per stage, by policy.
Results = dict[Policy, tuple[torch.Tensor, list[list[int]]]]


def one_by_one(model: Any, adapter: Adapter, inputs: Inputs, policies: list[Policy]) -> Results:
    found = {}
    for policy in policies:
        with run_under_policy(model, adapter, policy) as active, torch.no_grad():
            logits = model(**inputs, use_cache=False).logits[:, -2:]
            found[policy] = logits, [stage.tolist() for stage in active.visual_left]
    return found


def together(model: Any, adapter: Adapter, inputs: Inputs, policies: list[Policy]) -> Results:
    visual, real = adapter.visual_mask(model, dict(inputs)), inputs["attention_mask"].bool()
    assert visual is not None
    candidates = [make_ready(policy, adapter.facts(model)) for policy in policies]
    outcomes = run_one_pass(model, adapter, Prompt(inputs, visual, ~real, real, 2), candidates)
    return {
        policies[number]: (logits, [stage.tolist() for stage in outcome.visual_left])
        for outcome, logits in logits_of(model, adapter, outcomes, 5, 10**6)
        for number in outcome.candidates
    }


def wrong(found: Results, expected: Results) -> list[str]:
    assert found.keys() == expected.keys()
    return [
        policy.label()
        for policy, (logits, left) in found.items()
        if left != expected[policy][1] or not deviation(logits, expected[policy][0]) <= 1e-5
    ]


def can_run_all(model: Any, adapter: Adapter, inputs: Inputs) -> bool:
    """Whether inputs have visual tokens, on grids that are known where the model has any: a video may have none."""
    visual = adapter.visual_mask(model, dict(inputs))
    if visual is None or "grids" in adapter.facts(model).missing:
        return visual is not None
    try:
        return bool(adapter.grids(model, dict(inputs), int(visual.sum())))
    except RuntimeUseError:
        return False


def passes_of(name: str, policies: int, seeds: range) -> None:
    family = find(name)
    model: Any = family.build()
    adapter = find_adapter(model)
    facts = adapter.facts(model)
    probes = [each for each in family_probes(family) if can_run_all(model, adapter, each.inputs)]
    for seed in seeds:
        inputs, population = probes[seed % len(probes)].inputs, random_policies(facts, policies, seed)
        assert wrong(together(model, adapter, inputs, population), one_by_one(model, adapter, inputs, population)) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_random_populations_equal_one_by_one(name: str) -> None:
    passes_of(name, 12, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_many_random_populations_equal_one_by_one(name: str) -> None:
    passes_of(name, 40, range(2, 14))


def select(position: Any, keep: int, seed: int) -> Stage:
    scorer = ScorerChoice(name="random", options={"seed": seed})
    return Stage(site="vision", layer=0, operator="select", keep=keep, scorer=scorer, position=position)


def test_tokens_of_a_branch_that_ended_are_not_taken_for_another_s() -> None:
    """Selections that are numbered anew end at layer 2; prunings that are withdrawn later take their places."""
    model: Any = make_tiny_llava(layers=12)
    adapter, inputs = find_adapter(model), make_inputs((1, 1))
    ends = [Stage(layer=layer, operator="withdraw") for layer in range(12)[2:]]
    prunings = [
        Stage(layer=layer, operator="prune", keep=keep, scorer=ScorerChoice(name="text_to_visual"))
        for layer in range(3, 8)
        for keep in range(2, 6)
    ]
    selected = [Policy(stages=(select("recount", keep, seed), ends[0])) for keep in (2, 3, 4) for seed in (0, 1)]
    population = [Policy.keep_all(), *selected, *(Policy(stages=(each, ends[each.layer])) for each in prunings)]
    expected = one_by_one(model, adapter, inputs, population)
    for number in range(25):
        junk = [object() for _ in range(number % 7)]  # so that memory is laid out anew in every pass
        assert wrong(together(model, adapter, inputs, population), expected) == [], len(junk)


def test_one_token_and_all_of_them_are_different_stages() -> None:
    model: Any = make_tiny_llava()
    adapter, inputs = find_adapter(model), make_inputs((1,))
    stages = [Stage(layer=2, operator="prune", keep=keep, scorer=ScorerChoice(name="uniform")) for keep in (1, 1.0)]
    assert stages[0] != stages[1]
    population = [Policy(stages=(stage,)) for stage in stages]
    assert len(set(population)) == 2
    assert wrong(together(model, adapter, inputs, population), one_by_one(model, adapter, inputs, population)) == []


def test_nothing_is_remembered_by_the_id_of_an_object() -> None:
    """An id is given to another object when its owner is gone; `PerObject` and weak dictionaries keep or forget it."""
    for root in [*vtw_search.__path__, str(Path(vtw_search.__path__[0]).parent / "profilers")]:
        for path in Path(root).rglob("*.py"):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "id"], path


class EveryNth:
    """An operator from outside the package, with one option."""

    name, scoring_version, site, keeps, ranks, may_be_followed = "every_nth", 1, "decoder", "nothing", False, True
    options: Mapping[str, Any] = {"n": 2}

    def keep(self, layout: TokenLayout, request: Request = NOTHING_ASKED) -> torch.Tensor:
        assert request.options is not None
        place = layout.visual.long().cumsum(1) - 1
        return ~(layout.visual | layout.padding) | (layout.visual & (place % request.options["n"] == 0))

    def merge(self, hidden: torch.Tensor, layout: TokenLayout, request: Request) -> torch.Tensor:
        return hidden

    def left(self, visual: int, request: Request = NOTHING_ASKED) -> int:
        assert request.options is not None
        return math.ceil(visual / request.options["n"])


class Stripes(PlainScorer):
    """A scorer from outside the package, with one option."""

    name, reads = "stripes", "nothing"
    options: Mapping[str, Any] = {"period": 2}

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        return -(view.ordinal % options["period"]).float()


@pytest.fixture
def from_outside(monkeypatch: pytest.MonkeyPatch) -> list[Policy]:
    monkeypatch.setitem(OPERATORS, "every_nth", EveryNth())
    monkeypatch.setitem(SCORERS, "stripes", Stripes())
    nth = [Stage(layer=layer, operator="every_nth", options={"n": n}) for layer in (1, 2) for n in (2, 3)]
    striped = [
        Stage(layer=2, operator="prune", keep=0.5, scorer=ScorerChoice(name="stripes", options={"period": period}))
        for period in (2, 3)
    ]
    every = [Policy(stages=(stage,)) for stage in (*nth, *striped)]
    return [Policy.keep_all(), Policy.withdraw(2), *every, Policy(stages=(nth[0], striped[1]))]


def test_an_operator_and_a_scorer_from_outside_with_options(from_outside: list[Policy]) -> None:
    model: Any = make_tiny_llava()
    adapter, inputs = find_adapter(model), make_inputs((1,))
    expected = one_by_one(model, adapter, inputs, from_outside)
    assert wrong(together(model, adapter, inputs, from_outside), expected) == []
    visual = adapter.visual_mask(model, inputs)
    layout, tokens = TokenLayout(visual, ~inputs["attention_mask"].bool()), int(visual.sum())
    for policy in from_outside:
        counts = [stage[0] for stage in expected[policy][1]]
        assert visual_counts(policy, tokens) == counts
        assert [after * tokens for _, _, after in kept_shares(policy, tokens)] == pytest.approx(counts, abs=0.5)
        removed = tokens - counts[-1] if counts else 0
        assert tokens_per_layer(policy, layout, 4)[-1] == visual.shape[1] - removed


def test_only_what_takes_every_token_away_is_a_withdrawal_of_the_sweep(from_outside: list[Policy]) -> None:
    from tests.search.test_proxy import row_of

    assert set(sweep_of([row_of(policy) for policy in from_outside])) == {2}
