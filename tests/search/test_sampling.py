"""Samplers on a space whose truth is a formula; baselines by arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import pytest
from numpy.random import default_rng
from optuna.distributions import IntDistribution
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.trial import FixedTrial

from tests.search.records import records
from vtw_search import Policy
from vtw_search.errors import UnknownNameError
from vtw_search.evaluation.model import load_model
from vtw_search.evaluation.statistics import paired_difference_interval
from vtw_search.facts import ModelFacts
from vtw_search.records import Measurement
from vtw_search.results import Baseline, Judgement, Row
from vtw_search.search.baselines import SEEDS, baselines_of, baselines_text, compared, not_beaten
from vtw_search.search.sampling import (
    SAMPLERS,
    SamplerSettings,
    combination_of,
    explore,
    make_study,
    propose,
    tell_starts,
)
from vtw_search.search.space import are_numbers, make_space


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return load_model("reference", device="cpu").facts


def row_of(policy: Policy) -> Row:
    """Accuracy and macs that rise with the layers; accuracies below 0.5 break the limit."""
    layers = [stage.layer for stage in policy.stages] or [12]
    accuracy, macs = min(1.0, sum(layers) / len(layers) / 8), 100 * sum(layers)
    excess = Judgement("accuracy_drop", 0.5, 1 - accuracy, 0, 1, "")
    measured = {"accuracy": accuracy, "macs": macs, "visual_tokens": 64}
    return Row(Measurement(task="t", policy=policy, layer=layers[0], **measured), (excess,))


@pytest.mark.parametrize("name, pool", [*((name, 0) for name in SAMPLERS), ("tpe", 50), ("random", 5000)])
def test_a_sampler_measures_no_policy_twice_and_keeps_to_its_trials(name: str, pool: int, facts: ModelFacts) -> None:
    space, asked = make_space(facts, {"himap": {}, "vtw": {}}, None), list[Policy]()

    def measure(policies: Sequence[Policy]) -> list[Row]:
        asked.extend(policies)
        return [row_of(policy) for policy in policies]

    found = explore(space, SamplerSettings(name, 24, 8, 0, pool), space.seeds(24), measure)
    assert found == asked
    assert found[0].is_keep_all
    assert len(found) == len(set(found))
    assert len(found) == 24
    assert set(found[1 : 1 + len(space.seeds(24))]) == set(space.seeds(24))
    assert {Policy.withdraw(layer) for layer in range(1, 12)} <= set(found)


def test_a_small_space_ends_a_sampler(facts: ModelFacts) -> None:
    space = make_space(facts, {"vtw": {"layer": [2, 3]}}, None)
    found = explore(space, SamplerSettings("tpe", 50, 4, 0), [], lambda policies: [row_of(each) for each in policies])
    assert {policy.label() for policy in found} == {"keep-all", "withdraw@2", "withdraw@3"}
    with pytest.raises(UnknownNameError, match="did you mean 'tpe'"):
        explore(space, SamplerSettings("tp", 50, 4, 0), [], lambda policies: [])


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_a_sampler_that_may_measure_a_whole_space_does(name: str, facts: ModelFacts) -> None:
    """The last few of hundreds are hardly ever drawn."""
    space = make_space(facts, {"himap": {}}, None)
    *most, _, _, _ = every = list(space.policies())
    settings = SamplerSettings(name, len(every) + 2, 1, 0)
    found = explore(space, settings, most, lambda policies: [row_of(each) for each in policies])
    assert found[0].is_keep_all
    assert set(found[1:]) == set(every)


def test_a_sampler_is_told_of_its_starts_with_numbers_by_their_rank(facts: ModelFacts) -> None:
    space = make_space(facts, {"fastv": {"layer": [5, 3, 9], "keep": [0.5, 0.25]}, "vtw": {"layer": [9, 7]}}, None)
    study = make_study(SamplerSettings("random", 9, 1, 0))
    known = {policy: row_of(policy) for policy in (Policy.withdraw(7), *space.defaults()[:1])}
    tell_starts(study, space, known)
    first, second = study.trials
    assert first.params == {"recipe": "fastv", "fastv.layer": 1, "fastv.keep": 1}
    assert second.params == {"recipe": "vtw", "vtw.layer": 0}
    assert second.values == [known[Policy.withdraw(7)].measurement.accuracy, 700]
    assert isinstance(first.distributions["fastv.layer"], IntDistribution)
    read = [space.policy(*combination_of(FixedTrial(trial.params), space)) for trial in (first, second)]
    assert read == [space.defaults()[0], Policy.withdraw(7)]


def test_a_sampler_that_only_repeats_itself_is_filled_up_at_random(
    facts: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, settings = make_space(facts, {"himap": {}}, None), SamplerSettings("constant", 40, 8, 0)
    constant = {"recipe": "himap", **dict.fromkeys((f"himap.{key}" for key in space.values["himap"]), 0)}
    constant |= {f"himap.{key}": values[0] for key, values in space.values["himap"].items() if not are_numbers(values)}
    monkeypatch.setitem(SAMPLERS, "constant", lambda seed: PartialFixedSampler(constant, RandomSampler()))
    rounds: list[int] = []

    def measure(policies: Sequence[Policy]) -> list[Row]:
        rounds.append(len(policies))
        return [row_of(policy) for policy in policies]

    assert len(explore(space, settings, [], measure)) == 40
    assert len(rounds) <= 6, "a round is as good as full, although the sampler has nothing new"


def test_what_the_proxy_chose_comes_with_trials_of_its_own(facts: ModelFacts) -> None:
    space, settings = make_space(facts, {"himap": {}}, None), SamplerSettings("random", 99, 4, 0, 10_000)
    study = make_study(settings)
    known = {policy: row_of(policy) for policy in (Policy.keep_all(), *space.seeds(40))}
    chosen = propose(study, space, settings, known, [], 99)
    assert len(chosen) == 4
    for policy, [trial] in chosen.items():
        assert space.policy(*combination_of(FixedTrial(trial.params), space)) == policy
    again = propose(study, space, settings, known, list(chosen), 99)
    assert not set(again) & {*chosen, *known}


def test_a_space_is_as_large_as_its_distinct_policies(facts: ModelFacts) -> None:
    space = make_space(facts, {"random": {}}, None)
    distinct = len(list(space.policies()))
    assert distinct < space.size, "inside the decoder every token keeps its position"
    assert space.has_more_than(distinct - 1)
    assert not space.has_more_than(distinct)


def test_a_pool_as_large_as_the_space_is_the_space(facts: ModelFacts) -> None:
    space = make_space(facts, {"himap": {}, "vtw": {}}, None)
    assert set(space.located(space.draw(default_rng(0), space.size))) == set(space.policies())
    drawn = [name for name, _ in space.draw(default_rng(0), space.size - 1)]
    assert abs(drawn.count("vtw") - 11) < 12


def test_neighbours_differ_in_one_parameter_by_one_rank(facts: ModelFacts) -> None:
    space = make_space(facts, {"curve": {"middle": [0.5, 0.2, 0.7], "width": [0.1]}}, None)
    place = {"shape": "linear", "middle": 0.5, "width": 0.1, "scorer": "uniform"}
    near = [chosen for _, chosen in space.near("curve", place)]
    assert {chosen["middle"] for chosen in near} == {0.2, 0.5, 0.7}
    assert all(sum(chosen[key] != place[key] for key in place) == 1 for chosen in near)
    assert [
        chosen["middle"]
        for _, chosen in space.near("curve", place | {"middle": 0.2})
        if chosen["shape"] == "linear" and chosen["scorer"] == "uniform"
    ] == [0.5]


def test_baselines_cost_what_the_winner_costs(facts: ModelFacts) -> None:
    def macs(policy: Policy) -> int:
        [stage] = policy.stages
        if stage.operator == "downsample":
            return round(float(stage.keep or 0) * 64) * 10
        assert isinstance(stage.keep, int)
        return stage.keep * 10

    def renumbered(policies: Sequence[Policy]) -> list[float]:
        return [0.9 if policy.stages[0].position == "recount" else 0.8 for policy in policies]

    found = baselines_of(205, facts, 64, macs, renumbered)
    random = [policy.stages[0] for policy in found if policy.stages[0].operator == "select"]
    assert [stage.keep for stage in random] == [20] * (1 + len(SEEDS))
    assert [stage.position for stage in random] == ["keep", *["recount"] * len(SEEDS)]
    poolings = [policy for policy in found if policy.stages[0] not in random]
    assert [macs(policy) for policy in poolings] == [160, 160, 250]
    assert [policy.stages[0].position for policy in poolings] == ["keep", "recount", "recount"]

    def kept(policies: Sequence[Policy]) -> list[float]:
        return [1 - value for value in renumbered(policies)]

    assert [policy.stages[0].position for policy in baselines_of(205, facts, 64, macs, kept)].count("recount") == 2
    for missing, sites in (({"recount"}, {"vision"}), ({"recount", "before_decoder"}, {"decoder"})):
        fixed = replace(facts, missing=dict.fromkeys(missing, "M-RoPE"))
        only = baselines_of(205, fixed, 64, macs, lambda _: pytest.fail("there is nothing to choose"))
        assert {policy.stages[0].position for policy in only} == {"keep"}
        assert {policy.stages[0].site for policy in only} == sites


def test_a_baseline_is_compared_by_sample_of_the_selection_split() -> None:
    """The winner is right on four more samples, whose records come in another order."""
    scores = {5: [1.0] * 10, 3: [0.0] * 4 + [1.0] * 6}
    frame = pd.concat([
        *(records(layer, "selection", [0.0] * 10, own).sample(frac=1, random_state=layer)
          for layer, own in scores.items()),
        *(records(layer, "calibration", [0.0] * 10, [1.0] * 10) for layer in scores),
        records(3, "confirmation", [0.0] * 10, [1.0] * 10),
    ])  # fmt: skip
    winner, other = (Row(Measurement(task="t", policy=Policy.withdraw(layer), layer=layer), ()) for layer in (5, 3))
    failed = Row(Measurement(task="t", policy=Policy.withdraw(2), layer=2, failure="nan"), ())
    [found] = compared(winner, [failed, other], frame)
    assert (found.row, found.advantage) == (other, 0.4)
    names = [str(number) for number in range(10)]
    assert (found.low, found.high) == paired_difference_interval([1.0] * 4 + [0.0] * 6, names)


def test_a_winner_that_does_not_beat_its_baselines_is_flagged() -> None:
    def baseline(macs: int, low: float) -> Baseline:
        measurement = Measurement(task="t", policy=Policy.withdraw(3), layer=3, accuracy=0.8, macs=macs)
        return Baseline(Row(measurement, ()), low + 0.1, low, low + 0.2)

    winner = Row(Measurement(task="t", policy=Policy.withdraw(2), layer=2, accuracy=0.9, macs=100), ())
    sure, equal, dear = baseline(100, 0.01), baseline(99, -0.01), baseline(150, -0.1)
    assert not_beaten(winner, [sure, equal, dear]) == [equal]
    assert "NOT surely better" in baselines_text(winner, [sure, equal])
    assert "accuracy 0.800 at 99% of its macs (space=random has more of its kind)" in baselines_text(
        winner, [sure, equal]
    )
    sure_of_all = "; on the samples that chose it, surely more accurate than every baseline that costs no more (1)"
    assert baselines_text(winner, [sure, dear]) == sure_of_all
    assert baselines_text(winner, []) == ""
