"""Finalists and their tests: the order, the stop, what is looked at, and how often a wrong policy gets through."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.limit_simulations.simulation import exact_p_values, most_allowed
from tests.search.records import LAYERS, policy_of, records, row_of
from vtw_search.errors import EvidenceError
from vtw_search.evaluation.bounds import capped_mean_upper_bound, mean_upper_bound, share_upper_bound
from vtw_search.evaluation.paired import drop_p_value, exact_drop_bound
from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.results import Bounded, Confirmation, Finalist
from vtw_search.search.answer import choose, confirmed
from vtw_search.search.confirmation import confirm, finalist_of, finalists, risks, run_sequence
from vtw_search.search.limits import Limits
from vtw_search.search.objective import DEFAULT

LIMITS = Limits(0.01, "answer", "reference_candidate", accuracy_drop=0.02, kl_tail=0.05, confidence=0.95)
COUNT = 300


def samples(count: int, metric: str = "exact_match") -> list[Sample]:
    return [Sample(str(n), (), "?", ("a",), metric, f"confirmation-{n}", {}) for n in range(count)]


def frame(split: str, losses: dict[int, int], kl: float = 0.001, count: int = COUNT) -> pd.DataFrame:
    """Keep-all, right on every sample, and policies that lose so many."""
    parts = [records(LAYERS, split, [0.0] * count, [1.0] * count)]
    for layer, lost in losses.items():
        parts.append(records(layer, split, [kl] * count, [0.0] * lost + [1.0] * (count - lost)))
    return pd.concat(parts, ignore_index=True)


def searched(losses: dict[int, int]) -> pd.DataFrame:
    return pd.concat([frame("calibration", losses), frame("selection", losses)], ignore_index=True)


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0.2, 0.5, 0.55, 1.0, 1.4, 2.0])), max_size=11))
def test_finalists_are_a_chain_from_the_safest_to_the_cheapest(table: list[tuple[int, float]]) -> None:
    rows = [row_of(LAYERS, 1000), *(row_of(number, macs) for number, (macs, _) in enumerate(table, start=1))]
    cost = {row.measurement.policy: row.measurement.macs for row in rows}
    risk = {policy_of(number).digest(): value for number, (_, value) in enumerate(table, start=1)}
    chosen = finalists(rows, {**risk, Policy.keep_all().digest(): 0.0}, DEFAULT)
    assert len(chosen) <= 5
    assert bool(chosen) == bool(table)
    for safer, cheaper in itertools.pairwise(chosen):
        assert cost[safer] > cost[cheaper]
        # Risks within a quarter of each other are not told apart.
        assert risk[safer.digest()] <= 1.25 * risk[cheaper.digest()]
    for policy in chosen:
        own = (cost[policy], risk[policy.digest()])
        assert not any(macs <= own[0] and 1.25 * value < own[1] for macs, value in table)
    if table:
        assert cost[chosen[-1]] == min(cost[row.measurement.policy] for row in rows[1:])


def test_a_policy_that_looks_as_safe_as_a_cheaper_one_stays_as_a_step_before_it() -> None:
    rows = [row_of(LAYERS, 1000), row_of(9, 90), row_of(5, 50), row_of(3, 30)]
    risk = {policy_of(9).digest(): 0.75, policy_of(5).digest(): 0.75, policy_of(3).digest(): 0.9}
    assert finalists(rows, risk | {Policy.keep_all().digest(): 0.0}, DEFAULT) == [
        policy_of(9),
        policy_of(5),
        policy_of(3),
    ]


def test_the_cheapest_that_the_search_would_have_confirmed_is_among_the_finalists() -> None:
    rows = [row_of(LAYERS, 1000), *(row_of(layer, 80 * layer) for layer in range(1, LAYERS))]
    risk = {policy_of(layer).digest(): 1.45 - 0.1 * layer for layer in range(1, LAYERS)}
    chosen = [policy.stages[0].layer for policy in finalists(rows, risk, DEFAULT)]
    # Risk is at most 1 from layer 5 on; half-way are layers 8 and 3.
    assert chosen == [11, 8, 5, 3, 1]


def test_infeasible_candidates_and_keep_all_are_no_finalists() -> None:
    rows = [row_of(LAYERS, 1000), row_of(3, 30, excess=0.5), row_of(5, 50)]
    assert finalists(rows, {policy_of(5).digest(): 0.5, Policy.keep_all().digest(): 0}, DEFAULT) == [policy_of(5)]
    assert finalists(rows[:2], {Policy.keep_all().digest(): 0}, DEFAULT) == []


@given(st.lists(st.booleans(), max_size=5))
def test_the_sequence_stops_at_the_first_failure(passes: list[bool]) -> None:
    policies = [policy_of(layer) for layer in range(11, 11 - len(passes), -1)]
    asked: list[Policy] = []

    def test(policy: Policy) -> Finalist:
        asked.append(policy)
        upper = 0.0 if passes[policies.index(policy)] else 1.0
        return Finalist(policy, (Bounded("drop", 0.5, 0.0, upper, 10, "exact"),))

    tested, left = run_sequence(policies, test)
    stop = passes.index(False) + 1 if False in passes else len(passes)
    assert asked == policies[:stop]
    assert [each.policy for each in tested] == asked
    assert left == tuple(policy.label() for policy in policies[stop:])


def test_a_finalist_is_tested_with_the_bounds_of_its_records() -> None:
    found = finalist_of(frame("confirmation", {5: 1}), policy_of(5), LIMITS, 0.95, binary=True)
    kl, tail, drop = found.tests
    assert kl.upper == capped_mean_upper_bound([0.001] * COUNT, [str(n) for n in range(COUNT)], 0.1, 0.95)
    assert tail.upper == share_upper_bound(0, COUNT, 0.95)
    assert drop.upper == exact_drop_bound(1, 0, COUNT, 0.95)
    assert found.passed
    assert not finalist_of(frame("confirmation", {5: 2}), policy_of(5), LIMITS, 0.95, binary=True).passed


def test_a_drop_that_the_exact_test_does_not_refute_is_never_confirmed() -> None:
    """Of 300 pairs, 3 lost and 2 won: p is 0.047 for a drop of 0.019, and 0.06 for the limit of 0.02."""
    kept = records(LAYERS, "confirmation", [0.0] * COUNT, [0.0] * 2 + [1.0] * (COUNT - 2))
    own = records(5, "confirmation", [0.001] * COUNT, [1.0] * (COUNT - 3) + [0.0] * 3)
    found = finalist_of(pd.concat([kept, own]), policy_of(5), LIMITS, 0.95, binary=True)
    assert drop_p_value(3, 2, COUNT, 0.02) > 0.05
    assert [test.limit for test in found.tests if not test.holds] == ["accuracy_drop"]


@pytest.mark.parametrize("binary", [True, False])
def test_questions_on_one_image_are_one_draw_of_every_test(binary: bool) -> None:
    """Three questions on each of 100 images, in whatever order their records are."""
    images = [f"image-{n % 100}" for n in range(COUNT)]
    kl, lost = np.random.default_rng(0).random(COUNT) ** 6 * 0.2, [float(n % 100 >= 2) for n in range(COUNT)]
    kept = records(LAYERS, "confirmation", [0.0] * COUNT, [1.0] * COUNT, images)
    own = records(5, "confirmation", kl.tolist(), lost, images)
    rows = pd.concat([kept, own]).sample(frac=1, random_state=1)
    mean, tail, drop = finalist_of(rows, policy_of(5), LIMITS, 0.95, binary).tests
    assert (mean.images, tail.images, drop.images) == (100, 100, 100)
    capped = np.minimum(np.minimum(kl, 0.1).reshape(3, 100).mean(axis=0), 0.1)
    assert mean.upper == pytest.approx(mean_upper_bound(capped, 0, 0.1, 0.95), abs=1e-6)
    assert tail.upper == share_upper_bound(int((kl.reshape(3, 100) > 0.1).any(axis=0).sum()), 100, 0.95)
    assert drop.upper == mean_upper_bound([1.0] * 2 + [0.0] * 98, -1, 1, 0.95)


def test_nothing_that_the_search_saw_is_used_for_the_test() -> None:
    clean = frame("confirmation", {5: 0})
    # The same policy lost everything on the search's own samples.
    both = pd.concat([clean, frame("calibration", {5: COUNT}, kl=9.0), frame("selection", {5: COUNT})])
    for records_ in (clean, both):
        assert finalist_of(records_, policy_of(5), LIMITS, 0.95, binary=True).passed


def test_a_failure_on_the_confirmation_split_fails_the_finalist() -> None:
    broken = records(5, "confirmation", [0.0], [1.0], failure="out of memory")
    found = finalist_of(pd.concat([frame("confirmation", {}, count=1), broken]), policy_of(5), LIMITS, 0.95, True)
    assert (found.passed, found.text) == (False, "out of memory")


@pytest.mark.parametrize("kl,score", [(float("nan"), 1.0), (0.0, float("nan"))])
def test_a_missing_number_is_an_error_and_never_a_pass(kl: float, score: float) -> None:
    rows = pd.concat([frame("confirmation", {}), records(5, "confirmation", [kl] * COUNT, [score] * COUNT)])
    with pytest.raises(EvidenceError):
        finalist_of(rows, policy_of(5), LIMITS, 0.95, binary=True)


def test_a_policy_that_lacks_samples_of_keep_all_is_an_error() -> None:
    rows = pd.concat([frame("confirmation", {}), records(5, "confirmation", [0.0] * 299, [1.0] * 299)])
    with pytest.raises(EvidenceError, match="the same samples"):
        finalist_of(rows, policy_of(5), LIMITS, 0.95, binary=True)


def test_the_last_that_passed_is_the_policy_and_every_look_is_noted_first() -> None:
    rows = [row_of(LAYERS, 1000), row_of(9, 90), row_of(5, 50), row_of(3, 30)]
    events: list[str] = []

    def measure(policies: Sequence[Policy]) -> pd.DataFrame:
        events.append(f"measure {len(policies)}")
        return frame("confirmation", {9: 0, 5: 1, 3: 40})

    def look(policies: Sequence[Policy]) -> int:
        events.append("look")
        return 1

    found = confirm(rows, searched({9: 0, 5: 1, 3: 3}), LIMITS, samples(COUNT), measure, look)
    assert events == ["look", "measure 3"]
    assert [each.policy.label() for each in found.finalists] == ["withdraw@9", "withdraw@5", "withdraw@3"]
    assert (found.winner, found.images, found.level) == (policy_of(5), COUNT, 0.95)
    shown = found.as_dict()
    assert shown["tests"]["accuracy_drop"]["upper"] == exact_drop_bound(1, 0, COUNT, 0.95)
    assert shown["finalists"]["withdraw@3"].startswith("failed: accuracy_drop 0.133, at most")


ANSWER = choose([row_of(LAYERS, 1000), row_of(9, 90), row_of(5, 50)])


def confirmation_of(*outcomes: tuple[int, float]) -> Confirmation:
    """Finalists of these layers with these upper bounds of a drop that may be 0.02."""
    made = [Finalist(policy_of(k), (Bounded("drop", 0.02, 0.0, upper, 300, "exact"),)) for k, upper in outcomes]
    return Confirmation(0.95, 300, 300, 1, tuple(made))


def test_the_confirmed_policy_is_chosen_and_the_sentence_says_what_failed() -> None:
    answer = confirmed(ANSWER, confirmation_of((9, 0.01), (5, 0.03)))
    assert answer.chosen.measurement.policy == policy_of(9)
    assert [row.chosen for row in answer.rows] == [False, True, False]
    assert "limits hold with 95% confidence on 300 images" in answer.verdict
    assert "on this split" not in answer.verdict
    often = confirmed(ANSWER, replace(confirmation_of((9, 0.01), (5, 0.03)), looks=3))
    assert "on 300 images; test 3 on this split, the level is that of one; withdraw@5 failed" in often.verdict
    assert answer.verdict.endswith("withdraw@5 failed: drop 0, at most 0.03 > 0.02")


def test_when_the_safest_fails_the_answer_is_keep_all() -> None:
    answer = confirmed(ANSWER, confirmation_of((9, 0.03)))
    assert answer.chosen.measurement.policy.is_keep_all
    assert answer.verdict.startswith("keep-all: nothing holds with 95% confidence; withdraw@9 failed")


def test_without_finalists_the_answer_stays_and_names_the_limit_that_blocked() -> None:
    nothing = choose([row_of(LAYERS, 1000), row_of(5, 50, excess=0.5)])
    assert confirmed(nothing, confirmation_of()) == nothing
    assert "blocked by kl_nats" in nothing.verdict


def test_risk_is_the_worst_ratio_of_bound_and_limit_on_the_searchs_samples() -> None:
    rows = [row_of(5, 50)]
    found = risks(rows, searched({5: 4}), LIMITS, 0.95, binary=True)
    assert found == {policy_of(5).digest(): pytest.approx(exact_drop_bound(4, 0, COUNT, 0.95) / 0.02)}


def test_a_metric_that_the_confirmation_split_lacks_is_no_error_of_the_searchs_samples() -> None:
    found = searched({5: 4})
    own = (found["policy"] == policy_of(5).digest()) & (found["split"] == "selection")
    found.loc[own & (found["position"] == COUNT - 1), "score"] = 0.5
    upper = mean_upper_bound([1.0] * 4 + [0.0] * (COUNT - 5) + [0.5], -1, 1, 0.95)
    risk = risks([row_of(5, 50)], found, LIMITS, 0.95, binary=True)
    assert risk == {policy_of(5).digest(): pytest.approx(upper / 0.02)}


def test_a_chain_of_bad_finalists_rarely_gets_one_through() -> None:
    """Five finalists that all lose exactly the limit, on one split: any wrong pass, over 2,000 splits."""
    rng, limit, count = np.random.default_rng(20261124), 0.03, 200
    wrong = np.zeros(2000, dtype=bool)
    going = np.ones(2000, dtype=bool)
    for _ in range(5):
        counts = rng.multinomial(count, [limit, 0.0, 1 - limit], size=2000)
        going &= exact_p_values(counts, count, limit) <= 0.05
        wrong |= going
    assert 0 < wrong.sum() <= most_allowed()
