"""The additive proxy by arithmetic, and the order that the proxy gives on a space whose truth is a formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtw_search.evaluation.model import load_model
from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy, ScorerChoice, Stage
from vtw_search.records import Measurement
from vtw_search.results import Judgement, Row
from vtw_search.search.proxy import Proxy, stage_divergences, sweep_of
from vtw_search.search.space import make_space

LAYERS, VISUAL = 12, 64
SWEEP = {2: 3.0, 4: 1.0, 8: 0.25}
layers = st.integers(1, LAYERS)


def prune(layer: int, keep: float | int, scorer: str = "text_to_visual") -> Stage:
    return Stage(layer=layer, operator="prune", keep=keep, scorer=ScorerChoice(name=scorer))


def total(*stages: Stage) -> float:
    return sum(stage_divergences(Policy(stages=stages), SWEEP, LAYERS, VISUAL).values())


@pytest.mark.parametrize(
    "layer, expected", [(2, 3.0), (4, 1.0), (3, 2.0), (6, 0.625), (10, 0.125), (1, 3.0), (12, 0.0)]
)
def test_a_withdrawal_is_what_the_sweep_says(layer: int, expected: float) -> None:
    assert total(Stage(layer=layer, operator="withdraw")) == pytest.approx(expected)


def test_stages_count_the_share_that_they_take_away() -> None:
    parts = stage_divergences(
        Policy(stages=(prune(2, 0.5), prune(4, 0.5, "visual_received"), Stage(layer=8, operator="withdraw"))),
        SWEEP, LAYERS, VISUAL,
    )  # fmt: skip
    assert parts == {"prune:text_to_visual": 1.5, "prune:visual_received": 0.25, "withdraw:": 0.0625}
    assert total(prune(4, 16)) == pytest.approx(0.75)  # 48 of 64 leave


@given(st.lists(st.tuples(layers, st.floats(0.05, 1.0)), min_size=1, max_size=4), st.floats(0.05, 1.0))
def test_pruning_more_never_costs_less(stages: list[tuple[int, float]], factor: float) -> None:
    ordered = sorted(stages)
    less = [prune(layer, keep) for layer, keep in ordered]
    more = [prune(ordered[0][0], ordered[0][1] * factor), *less[1:]]
    assert total(*more) >= total(*less) - 1e-12


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return load_model("reference", device="cpu").facts


def row_of(policy: Policy) -> Row:
    """A world in which tokens are needed up to layer 6, and a text scorer chooses well."""
    kept, kl, accuracy = [1.0] * LAYERS, 0.0, 1.0
    share = 1.0
    for stage in policy.stages:
        after = 0.0 if stage.keep is None else share * float(stage.keep)
        waste = 0.2 if stage.scorer is not None else 1.0
        kl += waste * (share - after) * max(0, 7 - stage.layer) / 6
        kept[stage.layer :], share = [after] * (LAYERS - stage.layer), after
    accuracy -= 0.3 * kl
    macs = round(1000 * sum(kept)) + 5000
    numbers = {"accuracy": accuracy, "macs": macs, "kl_answer_nats": kl, "visual_tokens": VISUAL}
    judged = (Judgement("kl_nats", 0.3, kl, 0, 9, ""), Judgement("accuracy_drop", 0.1, 1 - accuracy, 0, 1, ""))
    layer = policy.stages[0].layer if policy.stages else LAYERS
    return Row(Measurement(task="t", policy=policy, layer=layer, **numbers), judged)


def test_the_proxy_prefers_what_adds_to_the_front(facts: ModelFacts) -> None:
    space = make_space(facts, {"prune_withdraw": {}, "himap": {}}, None)
    policies = list(space.policies())
    measured = [Policy.keep_all(), *space.seeds(40), *policies[::17]]
    proxy = Proxy(LAYERS, [row_of(policy) for policy in dict.fromkeys(measured)])
    fresh = [policy for policy in policies if policy not in measured]
    chosen = proxy.best(fresh, 8)
    assert len(set(chosen)) == 8

    def gain(policy: Policy) -> float:
        row, front = row_of(policy), proxy.front
        added = front.and_(float(row.measurement.macs or 0), float(row.measurement.accuracy or 0))
        return (added.hypervolume - front.hypervolume) if row.feasible else 0.0

    gains = sorted((gain(policy) for policy in fresh), reverse=True)
    # Among the best twentieth of all, once at least.
    assert max(gain(policy) for policy in chosen) >= gains[len(gains) // 20] > 0
    assert sum(gain(policy) > 0 for policy in chosen) > 8 * sum(each > 0 for each in gains) / len(gains)


def test_the_sweep_is_read_from_withdrawals_at_one_layer() -> None:
    policies = [
        Policy.keep_all(),
        Policy.withdraw(3),
        Policy(stages=(prune(2, 0.5), Stage(layer=5, operator="withdraw"))),
    ]
    assert sweep_of([row_of(policy) for policy in policies]) == {3: pytest.approx(4 / 6)}
