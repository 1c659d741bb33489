"""One policy for several tasks, against brute force over made-up tables; what is measured, looked at and paid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.limit_simulations.simulation import exact_p_values, most_allowed
from tests.search.records import LAYERS, policy_of, records
from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.records import Measured, Measurement
from vtw_search.results import Bounded, Finalist, Row, StudyResult
from vtw_search.search.answer import choose
from vtw_search.search.judge import judge
from vtw_search.search.limits import Limits
from vtw_search.search.sharing import Member, common_candidates, joint, share

LIMITS = Limits(0.01, "answer", "reference_candidate", accuracy_drop=0.05)


@dataclass
class Task:
    """A made-up task: samples lost per layer, of `count`, and macs of layer K. It plays the study and its examiner."""

    name: str
    lost: Mapping[int, int]
    per_layer: int = 10
    count: int = 100
    limits: Limits = LIMITS
    confirmed: Mapping[int, int] = field(default_factory=dict)
    broken_holdouts: Sequence[int] = ()
    noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # under the withdrawal at layer 5
    earlier: int = 0
    known: set[int] = field(default_factory=set)
    measured: list[str] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)

    def frame(self, split: str, lost: Mapping[int, int]) -> pd.DataFrame:
        parts = [records(LAYERS, split, [0.0] * self.count, [1.0] * self.count)]
        parts += [
            records(layer, split, [0.001] * self.count, [0.0] * gone + [1.0] * (self.count - gone))
            for layer, gone in lost.items() if layer != LAYERS
        ]  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def row(self, layer: int) -> Row:
        drop = self.lost.get(layer, 0) / self.count
        macs = self.per_layer * (layer + 1)
        measurement = Measurement(
            task=self.name, policy=policy_of(layer), layer=layer, accuracy=1 - drop, accuracy_drop=drop, macs=macs,
            kl_answer_nats=0.001, macs_ratio=macs / (self.per_layer * (LAYERS + 1)),
        )  # fmt: skip
        own, kept = (self.searched[self.searched["policy"] == policy_of(each).digest()] for each in (layer, LAYERS))
        return Row(measurement, judge(self.limits, measurement, own, kept))

    def member(self, layers: Sequence[int]) -> Member:
        """Return this task with a search that has measured `layers`, and keep-all."""
        self.known = {LAYERS, *layers}
        answer = choose([self.row(layer) for layer in (LAYERS, *layers)])
        result = StudyResult(self.name, answer.rows, {}, answer.chosen, answer.verdict, {}, {}, "records")
        study = SimpleNamespace(
            measure=self.measure, samples=lambda _: self.searched,
            measure_confirmation=lambda _: self.frame("confirmation", {**self.lost, **self.confirmed}),
            splits={"confirmation": [
                Sample(str(n), (), "?", ("a",), "exact_match", f"{self.name}-{n}", {}) for n in range(self.count)
            ]},
        )  # fmt: skip
        examination = SimpleNamespace(holdout=self.holdout, look_to_test=self.look)
        noise = SimpleNamespace(of_policy=lambda policy: self.noise if policy == policy_of(5) else {})
        return Member(cast(Any, study), self.limits, result, cast(Any, examination), cast(Any, noise))

    @cached_property
    def searched(self) -> pd.DataFrame:
        return pd.concat([self.frame(split, self.lost) for split in ("calibration", "selection")], ignore_index=True)

    def measure(self, policies: Sequence[Policy]) -> Measured:
        layers = [policy.stages[0].layer if policy.stages else LAYERS for policy in policies]
        self.measured += [policy_of(layer).label() for layer in layers if layer not in self.known]
        rows = {policy_of(layer).digest(): self.row(layer).measurement for layer in layers}
        return Measured(rows, self.searched, "records")

    def look(self, _: Limits, policies: Sequence[Policy]) -> int:
        self.looked.append("test " + ", ".join(policy.label() for policy in policies))
        return self.earlier + 1

    def holdout(self, row: Row, limits: Limits) -> dict[str, Any]:
        measurement = row.measurement
        self.looked.append(f"holdout {measurement.policy.label()}")
        failure = {"failure": "out of memory"} if measurement.layer in self.broken_holdouts else {}
        return {"samples": self.count, "accuracy_drop": 0.0, "evaluations_of_this_holdout": 1, **failure}


losses = st.lists(st.sampled_from([0, 1, 4, 5, 6, 20]), min_size=4, max_size=4)


@settings(max_examples=12, deadline=None)
@given(st.lists(losses, min_size=1, max_size=3))
def test_the_shared_policy_is_the_cheapest_that_every_task_allows(table: list[list[int]]) -> None:
    tasks = [
        Task(f"t{n}", dict(zip((2, 5, 7, 9), lost, strict=True)), per_layer=10 * (n + 1))
        for n, lost in enumerate(table)
    ]
    found = share([task.member((2, 5, 7, 9)) for task in tasks])
    allowed = [layer for layer in (2, 5, 7, 9) if all(task.lost[layer] <= 5 for task in tasks)]
    best = min(allowed, default=LAYERS)  # macs rise with the layer on every task
    assert found.shared is not None
    assert found.shared.policy == policy_of(best)
    for task in tasks:
        own = min((layer for layer in (2, 5, 7, 9) if task.lost[layer] <= 5), default=LAYERS)
        price = found.shared.prices[task.name]
        assert price.lost == task.per_layer * (best - own)
        assert price.keep_all == task.per_layer * (LAYERS + 1)
        assert task.measured == []
    assert found.shared.total.lost == sum(price.lost for price in found.shared.prices.values())


def test_noise_under_the_shared_policy_is_told_with_the_task_whose_limit_it_passes() -> None:
    quiet = {"mean_nats": 1e-6, "cap_nats": 0.1, "share_above_cap": 0.0}
    noise = {"first": {"batch": quiet}, "second": {"batch": quiet, "dtype": {**quiet, "mean_nats": 0.02}}}
    found = share([Task(name, {2: 9, 5: 0}, noise=own).member((2, 5)) for name, own in noise.items()])
    assert found.shared is not None
    assert found.shared.policy == policy_of(5)
    assert found.shared.noise == noise
    assert found.as_dict()["shared"]["policy_noise"] == noise
    assert found.verdict.count("WARNING") == 1
    assert "; WARNING on second: another dtype alone is 0.02 nats away on average" in found.verdict
    kept = share([Task(name, {5: 9}, noise=own).member((5,)) for name, own in noise.items()])
    assert kept.shared is not None
    assert kept.shared.policy.is_keep_all
    assert "WARNING" not in kept.verdict


def test_a_task_with_more_macs_counts_more() -> None:
    """Layer 2 is dear on the small task and cheap on the large one: the sum over the tasks decides."""
    small, large = Task("small", {2: 0, 5: 0}, 1), Task("large", {2: 0, 5: 0}, 100)
    members = [small.member((2, 5)), large.member((2, 5))]
    swapped = [
        row if row.measurement.layer == LAYERS else Row(
            row.measurement.model_copy(update={"macs": {2: 60, 5: 30}[row.measurement.layer]}), row.judgements
        )
        for row in members[0].result.rows
    ]  # fmt: skip
    answer = choose(swapped)
    result = StudyResult("small", answer.rows, {}, answer.chosen, "", {}, {}, "records")
    members[0] = replace(members[0], limits=LIMITS, result=result)
    assert answer.chosen.measurement.layer == 5
    found = share(members)
    assert found.shared is not None
    assert found.shared.policy == policy_of(2)


def test_where_the_tasks_measured_different_policies_only_those_that_may_be_shared_are_scored() -> None:
    """Two is broken where it was measured; the choice of each task is scored for the table."""
    left, right = Task("left", {2: 20, 3: 0, 4: 0, 6: 0, 7: 0}), Task("right", {3: 20, 4: 1, 6: 0, 7: 0})
    found = share([left.member((2, 3, 4)), right.member((6, 7))])
    assert left.measured == ["withdraw@6", "withdraw@7"]
    assert right.measured == ["withdraw@3", "withdraw@4"]
    assert found.shared is not None
    assert found.shared.policy == policy_of(4)
    assert [row.feasible for row in found.transfer["left"].values()] == [True, False]
    assert [row.feasible for row in found.transfer["right"].values()] == [True, True]


def test_the_table_has_every_choice_on_every_task_by_that_tasks_limits() -> None:
    strict = Limits(0.01, "answer", "reference_candidate", accuracy_drop=0.01)
    one, two = Task("one", {3: 4, 8: 0}), Task("two", {3: 2, 8: 0}, limits=strict)
    found = share([one.member((3, 8)), two.member((3, 8))])
    drops = {name: {task: row.measurement.accuracy_drop for task, row in rows.items()} for name, rows in found.lines()}
    assert drops == {
        "one": {"one": 0.04, "two": 0.02}, "two": {"one": 0.0, "two": 0.0}, "all tasks": {"one": 0.0, "two": 0.0},
    }  # fmt: skip
    assert not found.transfer["one"]["two"].feasible
    cells = json.loads(json.dumps(found.as_dict()))["transfer"]
    assert cells["one"]["two"]["status"] == "accuracy_drop 0.02 > 0.01"


TESTED = Limits(0.01, "answer", "reference_candidate", accuracy_drop=0.05, kl_tail=0.05, confidence=0.95)


def test_the_shared_policy_has_to_pass_on_every_task() -> None:
    """Layer 3 passes on the first task alone; each task's limits hold for layer 6."""
    first = Task("first", {3: 3, 6: 0}, limits=TESTED, count=300)
    second = Task("second", {3: 12, 6: 0}, limits=TESTED, count=300, confirmed={3: 15})
    found = share([first.member((3, 6)), second.member((3, 6))])
    assert found.confirmation is not None
    assert [each.policy.label() for each in found.confirmation.finalists] == ["withdraw@6", "withdraw@3"]
    passed, failed = found.confirmation.finalists
    assert {test.limit for test in passed.tests} == {
        f"{task}: {name}" for task in ("first", "second") for name in ("kl_nats", "kl_tail", "accuracy_drop")
    }
    assert "second: accuracy_drop 0.05, at most" in failed.text
    assert "first" not in failed.text
    assert found.shared is not None
    assert found.shared.policy == policy_of(6)
    assert (found.confirmation.samples, found.confirmation.images) == (600, 600)
    assert first.looked == second.looked == ["test withdraw@6, withdraw@3", "holdout withdraw@6"]
    assert "every task's limits hold with 95% confidence" in found.verdict
    assert "withdraw@3 failed: second: accuracy_drop" in found.verdict


def test_the_sequence_goes_by_the_worst_task_and_the_looks_of_all_are_told() -> None:
    """The second task alone would take layer 9 for riskier than the cheaper layer 6, and leave it out."""
    first = Task("first", {6: 10, 9: 0}, limits=TESTED, count=300, earlier=2)
    second = Task("second", {6: 2, 9: 8}, limits=TESTED, count=300)
    found = share([first.member((6, 9)), second.member((6, 9))]).confirmation
    assert found is not None
    assert [each.policy.label() for each in found.finalists] == ["withdraw@9", "withdraw@6"]
    assert found.looks == 3


def test_when_nothing_passes_everywhere_keep_all_is_shared_and_the_limit_is_named() -> None:
    first, second = Task("first", {3: 0, 6: 20}), Task("second", {3: 20, 6: 0})
    found = share([first.member((3, 6)), second.member((3, 6))])
    assert found.shared is not None
    assert found.shared.policy.is_keep_all
    assert "closest is withdraw@3, blocked on second by accuracy_drop 0.2 > 0.05" in found.verdict


def test_what_lacks_a_time_on_one_task_is_blocked_there() -> None:
    first, second = Task("first", {3: 0}).member((3,)), Task("second", {3: 0}).member((3,))
    rows = [replace(row, untimed="not timed: the clock jumped") for row in second.result.rows]
    untimed = replace(second, result=replace(second.result, rows=(second.result.rows[0], *rows[1:])))
    found = share([first, untimed])
    assert found.verdict.endswith("closest is withdraw@3, blocked on second by not timed: the clock jumped")


def test_keep_all_is_no_answer_where_it_costs_too_much() -> None:
    cheap = Limits(0.01, "answer", "reference_candidate", accuracy_drop=0.05, at_most={"macs_ratio": 0.6})
    first, second = Task("first", {3: 0, 5: 20}, limits=cheap), Task("second", {3: 20, 5: 0}, limits=cheap)
    found = share([first.member((3, 5)), second.member((3, 5))])
    assert found.shared is None
    assert found.verdict.startswith("no policy, not even keep-all, is within the limits of all 2 tasks")
    assert found.as_dict()["shared"] is None


def test_a_policy_that_fails_on_a_holdout_is_not_shared() -> None:
    first, second = Task("first", {3: 0}), Task("second", {3: 0}, broken_holdouts=[3])
    found = share([first.member((3,)), second.member((3,))])
    assert found.shared is not None
    assert found.shared.policy.is_keep_all
    assert "withdraw@3 failed on the holdout of second: out of memory" in found.verdict


def test_a_choice_that_was_raced_out_on_another_task_is_measured_there_in_full() -> None:
    left, right = Task("left", {3: 0, 6: 0}), Task("right", {3: 20, 6: 0})
    member = right.member((3, 6))
    rows = [
        Row(row.measurement.model_copy(update={"stopped": "accuracy_drop surely > 0.05", "accuracy_drop": 0.9}), ())
        if row.measurement.layer == 3 else row
        for row in member.result.rows
    ]  # fmt: skip
    found = share([left.member((3, 6)), replace(member, result=replace(member.result, rows=tuple(rows)))])
    cell = found.transfer["left"]["right"]
    assert (cell.measurement.stopped, cell.measurement.accuracy_drop) == (None, 0.2)
    assert found.shared is not None
    assert found.shared.policy == policy_of(6)


def test_common_candidates_keep_their_order_and_leave_out_what_any_task_excludes() -> None:
    first, second = Task("first", {3: 0, 6: 20}).member((3, 6)), Task("second", {2: 0, 3: 0}).member((2, 3))
    labels = [policy.label() for policy in common_candidates([first.result, second.result])]
    assert labels == ["keep-all", "withdraw@3", "withdraw@2"]


def test_a_joint_finalist_that_failed_on_one_task_failed() -> None:
    fine = Finalist(policy_of(3), (Bounded("accuracy_drop", 0.1, 0.0, 0.01, 300, "exact"),))
    broken = Finalist(policy_of(3), (), "out of memory")
    assert joint(policy_of(3), {"a": fine, "b": fine}).passed
    assert joint(policy_of(3), {"a": fine, "b": broken}).failure == "b: out of memory"


@pytest.mark.parametrize("harmless", [0.0, 0.03])
def test_an_intersection_union_test_needs_no_correction(harmless: float) -> None:
    """Three tasks, the limit of the third exactly broken: wrong joint passes of 2,000 stay within the level."""
    rng, limit, count = np.random.default_rng(20261126), 0.03, 200
    first, second, third = (
        exact_p_values(rng.multinomial(count, [drop, 0.0, 1 - drop], size=2000), count, limit) <= 0.05
        for drop in (harmless, harmless, limit)
    )
    joint_passes = (first & second & third).sum()
    assert joint_passes <= third.sum() <= most_allowed()
    # Tasks that are far from their limits cost no power: each is tested at the full level.
    assert harmless > 0 or joint_passes == third.sum() > 0
