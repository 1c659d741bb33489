"""Slices, costs, objectives, and what sample sizes can certify."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.records import LAYERS, policy_of, records, row_of
from vtw_search.errors import ConfigError, EvidenceError, OutOfReachError, UnknownNameError
from vtw_search.evaluation.bounds import share_upper_bound
from vtw_search.evaluation.tasks import Sample
from vtw_search.results import Row
from vtw_search.search.answer import choose, require_affordable
from vtw_search.search.confirmation import finalist_of
from vtw_search.search.judge import judge
from vtw_search.search.limits import Limits
from vtw_search.search.objective import DEFAULT, Objective, objective_of
from vtw_search.search.racing import Racing
from vtw_search.search.reach import check_cap, check_reach, reach, reach_text


def limits(**changes: Any) -> Limits:
    return Limits(**{"kl_nats": None, "kl_position": "answer", "kl_direction": "reference_candidate", **changes})


SLICES = [{"digits": "2"}] * 200 + [{"digits": "4"}] * 100


def frames(lost_of_four: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A policy that loses samples of the slice digits=4 alone, and keep-all; the same on all three splits."""
    scores, kl = [1.0] * (300 - lost_of_four) + [0.0] * lost_of_four, [0.0] * 200 + [0.02] * 100
    splits = ("calibration", "selection", "confirmation")
    own = pd.concat([records(5, split, kl, scores, slices=SLICES) for split in splits])
    kept = pd.concat([records(LAYERS, split, [0.0] * 300, [1.0] * 300, slices=SLICES) for split in splits])
    return own, kept


def test_the_worst_slice_decides_in_the_search() -> None:
    asked = limits(accuracy_drop=0.05, slices={"digits": {"accuracy_drop": 0.08, "kl_nats": 0.01}})
    own, kept = frames(lost_of_four=10)
    judged = {each.limit: each for each in judge(asked, row_of(5, 50).measurement, own, kept)}
    assert judged["accuracy_drop"].holds
    assert judged["accuracy_drop[digits=2]"].value == 0
    assert judged["accuracy_drop[digits=4]"].value == pytest.approx(0.1)
    assert not judged["accuracy_drop[digits=4]"].holds
    assert not judged["kl_nats[digits=4]"].holds
    row = Row(row_of(5, 50).measurement, tuple(judged.values()))
    assert row.status == "kl_nats[digits=4] 0.02 > 0.01; accuracy_drop[digits=4] 0.1 > 0.08"


def test_the_worst_slice_decides_in_the_test() -> None:
    own, kept = frames(lost_of_four=2)
    rows = pd.concat([own, kept])
    whole = finalist_of(rows, policy_of(5), limits(accuracy_drop=0.05), 0.95, binary=True)
    parts = limits(accuracy_drop=0.05, slices={"digits=4": {"accuracy_drop": 0.05}})
    sliced = finalist_of(rows, policy_of(5), parts, 0.95, binary=True)
    assert whole.passed
    assert [(test.limit, test.images, test.holds) for test in sliced.tests] == [
        ("accuracy_drop", 300, True), ("accuracy_drop[digits=4]", 100, False),
    ]  # fmt: skip


def test_single_values_of_a_slice_are_cut_at_ten_times_its_own_limit() -> None:
    own, kept = frames(0)
    asked = limits(kl_nats=0.001, slices={"digits=4": {"kl_nats": 0.1}})
    whole, part = finalist_of(pd.concat([own, kept]), policy_of(5), asked, 0.95, binary=True).tests
    assert [whole.value, part.value] == pytest.approx([0.01 / 3, 0.02])
    assert [(race.limit, race.high) for _, race in Racing(asked, 0.95, (("digits", "4"),)).races()] == [
        (0.001, pytest.approx(0.01)), (0.1, pytest.approx(1.0)),
    ]  # fmt: skip


def test_a_slice_that_does_not_occur_is_named_with_what_does() -> None:
    own, kept = frames(0)
    with pytest.raises(UnknownNameError, match=r"unknown slice 'digit'.*digits"):
        judge(limits(slices={"digit": {"accuracy_drop": 0.1}}), row_of(5, 50).measurement, own, kept)


def test_a_missing_number_is_an_error_and_never_within_a_limit() -> None:
    own, kept = frames(0)
    own["kl_answer_nats"] = float("nan")
    with pytest.raises(EvidenceError):
        judge(limits(kl_nats=0.1), row_of(5, 50).measurement, own, kept)


def test_the_share_above_the_cap_has_its_own_limit() -> None:
    own, kept = frames(0)
    judged = judge(limits(kl_nats=0.1, kl_cap_nats=0.015, kl_tail=0.3), row_of(5, 50).measurement, own, kept)
    assert [(each.limit, each.holds) for each in judged] == [("kl_nats", True), ("kl_tail", False)]
    assert judged[1].value == pytest.approx(1 / 3)


@pytest.mark.parametrize("limit,holds", [(0.5, True), (0.04, False)])
def test_a_cost_is_judged_on_what_was_measured(limit: float, holds: bool) -> None:
    own, kept = frames(0)
    [judged] = judge(limits(at_most={"macs_ratio": limit}), row_of(5, 50).measurement, own, kept)
    assert (judged.limit, judged.value, judged.holds) == ("macs_ratio", 0.05, holds)


def test_a_cost_that_was_not_measured_is_an_error() -> None:
    own, kept = frames(0)
    with pytest.raises(ConfigError, match=r"latency_ms was not measured.*profile=time"):
        judge(limits(at_most={"latency_ms": 1.0}), row_of(5, 50).measurement, own, kept)
    with pytest.raises(UnknownNameError, match="did you mean 'latency_ms'"):
        judge(limits(at_most={"latency": 1.0}), row_of(5, 50).measurement, own, kept)


def test_when_keep_all_costs_too_much_there_is_no_policy_and_the_status_is_3() -> None:
    own, kept = frames(0)
    asked = limits(at_most={"macs_ratio": 0.01})
    rows = [Row(row_of(layer, macs).measurement, judge(asked, row_of(layer, macs).measurement, own, kept))
            for layer, macs in ((LAYERS, 1000), (5, 50))]  # fmt: skip
    answer = choose(rows)
    with pytest.raises(OutOfReachError, match=r"no policy for t meets every limit: macs_ratio 1 > 0.01") as raised:
        require_affordable("t", answer, asked)
    assert raised.value.exit_code == 3


ROWS = [
    row_of(LAYERS, 1000, latency_ratio=1.0),
    row_of(3, 300, accuracy_drop=0.03, latency_ratio=0.9),
    row_of(5, 500, accuracy_drop=0.01, latency_ratio=0.8),
    row_of(7, 700, accuracy_drop=0.0, latency_ratio=0.8),
]


def _objective(prefer: Any) -> Objective:
    """A list is lexicographic, a mapping gives weights."""
    return objective_of([], prefer) if isinstance(prefer, dict) else objective_of(prefer, {})


@pytest.mark.parametrize(
    "prefer,layer",
    [
        (["macs"], 3),
        (["accuracy_drop"], 7),
        (["latency_ratio"], 5),
        (["latency_ratio", "accuracy_drop"], 7),
        ({"macs_ratio": 1.0, "accuracy_drop": 30.0}, 7),
        ({"macs_ratio": 1.0, "accuracy_drop": 10.5}, 5),
        ({"macs_ratio": 1.0, "accuracy_drop": 1.0}, 3),
        ({"macs_ratio": 1.0, "accuracy": 1.0}, 3),
    ],
)
def test_the_objective_decides_among_feasible_policies(prefer: Any, layer: int) -> None:
    assert choose(ROWS, _objective(prefer)).chosen.measurement.layer == layer


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_weighted_choice_has_the_lowest_sum(macs: float, drop: float) -> None:
    chosen = choose(ROWS, _objective({"macs_ratio": macs, "accuracy_drop": drop})).chosen.measurement
    sums = [macs * r.measurement.macs_ratio + drop * r.measurement.accuracy_drop for r in ROWS[1:]]
    assert macs * chosen.macs_ratio + drop * chosen.accuracy_drop == pytest.approx(min(sums))


def test_an_objective_names_known_columns_that_were_measured() -> None:
    assert objective_of(["macs"], {}) == DEFAULT
    with pytest.raises(UnknownNameError, match="latency_ms"):
        objective_of(["latency_mss"], {})
    with pytest.raises(ConfigError, match="must name a column"):
        objective_of([], {})
    with pytest.raises(ConfigError, match="latency_ms was not measured"):
        choose(ROWS, objective_of(["latency_ms"], {}))


def samples(count: int, metric: str = "exact_match", per_image: int = 1) -> list[Sample]:
    return [
        Sample(str(n), (), "?", ("a",), metric, str(n // per_image), {"kind": "ab"[n % 2]}) for n in range(count)
    ]  # fmt: skip


ASKED = limits(kl_nats=0.01, kl_tail=0.05, accuracy_drop=0.02, confidence=0.95)


def test_what_is_within_reach_is_said_and_what_is_not_is_refused_with_numbers() -> None:
    found = {"t": reach(ASKED, samples(300), 0.95)}
    check_reach(found, 0.95)
    assert "t: 300 images certify at best kl_nats down to" in reach_text(found, 0.95)
    with pytest.raises(ConfigError, match=r"accuracy_drop <= 0.02 needs 149; 100 images certify 0.0295 at best"):
        check_reach({"t": reach(ASKED, samples(100), 0.95)}, 0.95)


def test_reach_counts_images_and_slices() -> None:
    part = limits(accuracy_drop=0.02, slices={"kind=a": {"accuracy_drop": 0.02}})
    assert [(each.limit, each.images) for each in reach(part, samples(300), 0.95)] == [
        ("accuracy_drop", 300), ("accuracy_drop[kind=a]", 150),
    ]  # fmt: skip
    assert reach(part, samples(300, per_image=3), 0.95)[0].images == 100


def test_fractional_scores_need_more_images() -> None:
    exact, fractional = (reach(ASKED, samples(150, metric), 0.95)[-1] for metric in ("exact_match", "anls"))
    assert exact.in_reach
    assert not fractional.in_reach
    assert fractional.needed is not None
    assert fractional.needed > 149


def test_no_confirmation_sample_is_out_of_reach() -> None:
    with pytest.raises(ConfigError, match="0 images"):
        check_reach({"t": reach(ASKED, [], 0.95)}, 0.95)


def test_a_slice_without_an_image_to_test_on_is_out_of_reach() -> None:
    """The rare kind occurs in the samples of the search alone: it would be judged, and never tested."""
    rare = [Sample("r", (), "?", ("a",), "exact_match", "r", {"kind": "rare"})]
    asked = limits(accuracy_drop=0.02, slices={"kind": {"accuracy_drop": 0.05, "kl_nats": 0.1}})
    check_reach({"t": reach(asked, samples(300), 0.95)}, 0.95)
    found = reach(asked, samples(300), 0.95, others=[*samples(40), *rare])
    assert [each.limit for each in found if not each.in_reach] == ["kl_nats[kind=rare]", "accuracy_drop[kind=rare]"]
    with pytest.raises(ConfigError, match=r"accuracy_drop\[kind=rare\] <= 0.05 needs \d+; 0 images.*fewer slices"):
        check_reach({"t": found}, 0.95)
    named = limits(slices={"kind=a": {"accuracy_drop": 0.05}})
    check_reach({"t": reach(named, samples(300), 0.95, others=rare)}, 0.95)


@pytest.mark.parametrize(
    "changes,broken",
    [
        ({"kl_nats": 0.01, "kl_cap_nats": 0.005}, "'kl_nats': 0.01"),
        ({"kl_nats": 0.01, "kl_cap_nats": 0.01}, "'kl_nats': 0.01"),
        ({"kl_nats": 0.01, "kl_cap_nats": 0.1, "slices": {"kind=a": {"kl_nats": 0.2}}}, "'slices.kind=a.kl_nats': 0.2"),
        ({"kl_nats": 0.01, "kl_cap_nats": 0.02, "slices": {"kind": {"accuracy_drop": 0.1}}}, None),
        ({"kl_nats": 0.01}, None),
        ({"kl_cap_nats": 0.001, "kl_tail": 0.1}, None),
    ],
)
def test_a_cap_that_no_mean_can_exceed_the_limit_under_is_refused(changes: Any, broken: str | None) -> None:
    if broken is None:
        check_cap("t", limits(**changes))
        return
    with pytest.raises(ConfigError, match=r"above every limit on a mean KL of t:.*raise limits.kl_cap_nats") as raised:
        check_cap("t", limits(**changes))
    assert broken in str(raised.value)
    assert f"'kl_cap_nats': {changes['kl_cap_nats']}" in str(raised.value)


def test_a_tail_with_a_cap_of_its_own_is_judged_raced_and_tested_without_a_limit_on_the_mean() -> None:
    own, kept = frames(0)  # a third of the samples have a KL of 0.02
    asked = limits(kl_tail=0.3, kl_cap_nats=0.015)
    [judged] = judge(asked, row_of(5, 50).measurement, own, kept)
    assert (judged.limit, judged.value, judged.holds) == ("kl_tail", pytest.approx(1 / 3), False)
    rows = pd.concat([own, kept])
    [test] = finalist_of(rows, policy_of(5), limits(kl_tail=0.4, kl_cap_nats=0.015), 0.95, binary=True).tests
    assert (test.limit, test.holds) == ("kl_tail", True)
    assert test.upper == share_upper_bound(100, 300, 0.95)
    [case] = reach(asked, samples(300), 0.95)
    assert (case.limit, case.in_reach) == ("kl_tail", True)
    high = pd.concat([
        records(layer, split, [kl] * 20, [1.0] * 20)
        for layer, kl in ((5, 0.02), (LAYERS, 0.0)) for split in ("calibration", "selection")
    ])  # fmt: skip
    stopped = Racing(limits(kl_tail=0.05, kl_cap_nats=0.015), 0.95).stopped(high)
    assert stopped == {policy_of(5).digest(): "kl_tail surely > 0.05"}


def test_a_tail_without_a_cap_is_no_limit_where_the_mean_has_none() -> None:
    assert limits(kl_tail=0.05, accuracy_drop=0.1).quality([])[0].name == "accuracy_drop"
    assert limits(kl_tail=0.05).quality([]) == []
