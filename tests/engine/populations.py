"""Random policies over every operator, scorer, option, position and kind of keep that a model can run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from vtw_search.errors import PolicyError
from vtw_search.facts import ModelFacts
from vtw_search.operators import BUDGETS, OPERATORS, Operator
from vtw_search.policies import Policy, ScorerChoice, Stage
from vtw_search.runtime import make_ready
from vtw_search.scorers import SCORERS


def random_policies(facts: ModelFacts, count: int, seed: int) -> list[Policy]:
    """Return keep-all and different policies that the model can run, some of which begin with the same stages."""
    draw, found = random.Random(seed), {Policy.keep_all(): None}
    while len(found) <= count:
        # Some go on from one that is there, so that the trie has depth.
        begun = draw.choice(list(found)).stages if draw.random() < 0.5 else ()
        policy = Policy(stages=(*begun, *(_stage(draw, facts, not begun) for _ in range(draw.randint(1, 2)))))
        try:
            make_ready(policy, facts)
        except PolicyError:
            continue  # out of order, or not for this model: the readiness tests are about what is refused
        found[policy] = None
    return list(found)


def _stage(draw: random.Random, facts: ModelFacts, first: bool) -> Stage:
    operator = draw.choice([each for each in OPERATORS.values() if first or each.site == "decoder"])
    scorer = draw.choice(list(SCORERS.values())) if operator.ranks else None
    in_front = operator.site == "vision"
    return Stage(
        site=operator.site,
        layer=0 if in_front else draw.randint(facts.first_layer, facts.num_layers - 1),
        operator=operator.name,
        keep=_keep(draw, operator),
        scorer=None if scorer is None else ScorerChoice(name=scorer.name, options=_options(draw, scorer.options)),
        position=draw.choice(["keep", "recount"]) if in_front else "keep",
        options=_options(draw, operator.options),
    )


def _keep(draw: random.Random, operator: Operator) -> float | int | str | None:
    share, count = draw.choice([0.25, 0.5, 0.8, 1.0]), draw.randint(1, 4)
    # A budget that needs scikit-learn's neighbours is no other code in the pass.
    budget = draw.choice([name for name in BUDGETS if name != "lof"])
    return {"nothing": None, "share": share, "any": draw.choice([share, count, budget])}[operator.keeps]


def _options(draw: random.Random, defaults: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, default in defaults.items():
        if isinstance(default, tuple):
            found[name] = draw.choice(default)
        elif isinstance(default, bool):
            found[name] = draw.random() < 0.5
        elif isinstance(default, int):
            found[name] = draw.choice([default, default + 1])
        else:
            found[name] = default
    return {name: value for name, value in found.items() if draw.random() < 0.7}
