"""Racing, against a loop over policies and values; what stopped candidates may and may not do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.records import LAYERS, policy_of, records, row_of
from vtw_search.engine import Extent, LayerTokens
from vtw_search.evaluation.sequential import Race
from vtw_search.policies import Policy
from vtw_search.records import Measurement, RecordStore, SampleRecord
from vtw_search.results import Row
from vtw_search.search.answer import choose
from vtw_search.search.judge import judge
from vtw_search.search.limits import Limits
from vtw_search.search.racing import Course, Racing, brought_back
from vtw_search.search.saving import extent_of, racing_result
from vtw_search.search.trials import record_trials
from vtw_search.tokens import TokenLayout

LIMITS = Limits(0.01, "answer", "reference_candidate", accuracy_drop=0.1, kl_tail=0.05)
KINDS = ({"kind": "a"}, {"kind": "b"})


def table_of(kl: dict[int, list[float]], drops: dict[int, list[float]], images: int) -> pd.DataFrame:
    """Records of policies, and of keep-all, which is always right; questions beyond `images` go round again."""
    longest = max(map(len, kl.values()))
    kl, drops = {LAYERS: [0.0] * longest, **kl}, {LAYERS: [0.0] * longest, **drops}
    clusters, slices = [f"image-{n % images}" for n in range(longest)], [KINDS[n % 2] for n in range(longest)]
    parts = [
        records(layer, split, values, [1 - value for value in values], clusters, slices)
        for layer in kl
        for split, values in (("calibration", kl[layer]), ("selection", drops[layer]))
    ]
    return pd.concat(parts, ignore_index=True)


def by_hand(frame: pd.DataFrame, racing: Racing, layer: int) -> list[str]:
    """The limits that one policy surely breaks, by Race on lists."""
    broken = []
    for limit, race in racing.races():
        split = "selection" if limit.quantity == "drop" else "calibration"
        rows = frame[(frame["policy"] == policy_of(layer).digest()) & (frame["split"] == split)]
        seen, values = set[str](), list[float]()
        for expected, (_, row) in enumerate(rows.sort_values("position").iterrows()):
            inside = limit.slice_ is None or limit.slice_ in json.loads(row["slices"]).items()
            if row["position"] != expected:
                break
            if inside and row["cluster"] not in seen:
                seen.add(row["cluster"])
                kl = row["kl_answer_nats"]
                over = float(kl > racing.limits.cap_nats(limit))
                values.append({"drop": 1 - row["score"], "tail": over, "kl": kl}[limit.quantity])
        if values and race(values) == "stop":
            broken.append(limit.name)
    return broken


lengths = st.integers(1, 12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(lengths, min_size=1, max_size=4), st.integers(1, 12), st.booleans())
def test_what_is_stopped_is_what_a_loop_stops(seed: int, counts: list[int], images: int, sliced: bool) -> None:
    rng = np.random.default_rng(seed)
    counts = [12, *counts]
    kl = {layer: (rng.random(count) ** 3 * 0.2).tolist() for layer, count in enumerate(counts, 1)}
    drops = {layer: rng.choice([0.0, 1.0], count).tolist() for layer, count in enumerate(counts, 1)}
    frame = table_of(kl, drops, images).sample(frac=1, random_state=seed % 1000)
    limits = Limits(**{**LIMITS.__dict__, "slices": {"kind": {"kl_nats": 0.005}} if sliced else {}})
    racing = Racing(limits, 0.9, (("kind", "a"), ("kind", "b")))
    stopped = racing.stopped(frame)
    for layer in kl:
        names = [part.split(" surely")[0] for part in stopped.get(policy_of(layer).digest(), "").split("; ") if part]
        assert names == by_hand(frame, racing, layer)
    assert policy_of(LAYERS).digest() not in stopped


def test_the_level_is_shared_by_the_limits() -> None:
    races = Racing(LIMITS, 0.94, ()).races()
    assert [limit.name for limit, _ in races] == ["kl_nats", "kl_tail", "accuracy_drop"]
    assert all(race.level == pytest.approx(0.98) for _, race in races)
    assert [(race.limit, race.low, race.high) for _, race in races] == [(0.01, 0, 0.1), (0.05, 0, 1), (0.1, -1, 1)]
    assert Racing(Limits(None, "answer", "reference_candidate"), 0.95).races() == []


def test_a_stop_is_never_taken_back_by_later_batches() -> None:
    rng = np.random.default_rng(0)
    kl = {layer: (rng.random(40) ** 4 * 0.1).tolist() for layer in range(1, 9)}
    racing, before = Racing(LIMITS, 0.9), set[str]()
    whole = table_of(kl, {layer: [0.0] * 40 for layer in kl}, 40)
    for seen in range(5, 41, 5):
        now = set(racing.stopped(whole[whole["position"] < seen]))
        assert before <= now
        before = now
    assert before


def test_questions_on_one_image_are_no_further_evidence() -> None:
    kl, drops = {1: [0.1] * 12}, {1: [0.0] * 12}
    assert Racing(LIMITS, 0.95).stopped(table_of(kl, drops, 12))
    assert not Racing(LIMITS, 0.95).stopped(table_of(kl, drops, 1))


def test_samples_behind_a_gap_wait() -> None:
    frame = table_of({1: [0.1] * 12}, {1: [0.0] * 12}, 12)
    bad = policy_of(1).digest()
    assert bad in Racing(LIMITS, 0.95).stopped(frame)
    own = frame["policy"] == bad
    assert bad not in Racing(LIMITS, 0.95).stopped(frame[~own | (frame["position"] != 0)])
    assert bad not in Racing(LIMITS, 0.95).stopped(frame[frame["position"] != 0])


def test_only_the_samples_that_a_limit_is_judged_on_count() -> None:
    frame = table_of({1: [0.0] * 4 + [0.1] * 8}, {1: [0.0] * 12}, 12)
    few = Limits(0.01, "answer", "reference_candidate", kl_samples=4)
    assert Racing(Limits(0.01, "answer", "reference_candidate"), 0.95).stopped(frame)
    assert not Racing(few, 0.95).stopped(frame)


def sample_records(frame: pd.DataFrame) -> list[SampleRecord]:
    return [SampleRecord(**row) for row in frame.to_dict("records")]


def test_a_course_learns_from_records_and_lets_all_go_on_without_racing() -> None:
    frame = table_of({1: [0.1] * 12, 2: [0.0] * 12}, {1: [0.0] * 12, 2: [0.0] * 12}, 12)
    policies = [policy_of(layer) for layer in (LAYERS, 1, 2)]
    course, none = Course(Racing(LIMITS, 0.95)), frame.iloc[:0]
    course.tell(frame[frame["position"] < 1], [], policies)
    assert course.going_on(policies) == policies
    course.tell(none, sample_records(frame), policies)
    assert course.going_on(policies) == [policies[0], policies[2]]
    assert len(course.frame) == len(frame)
    assert Course(None).going_on(policies) == policies


def test_what_was_measured_of_a_stopped_candidate_since_does_not_count() -> None:
    frame = table_of({1: [0.1] * 12, 2: [0.0] * 12}, {1: [0.0] * 12, 2: [0.0] * 12}, 12)
    policies = [policy_of(layer) for layer in (LAYERS, 1, 2)]

    def run(known: pd.DataFrame) -> Course:
        course = Course(Racing(LIMITS, 0.95))
        for split in ("calibration", "selection"):
            for start in range(0, 12, 4):
                let_in = course.going_on(policies) if start else policies
                inside = (known["split"] == split) & known["position"].between(start, start + 3)
                course.tell(known[inside], [], let_in)
        return course

    whole = run(frame)
    stopped = whole.frame[whole.frame["policy"] == policy_of(1).digest()]
    assert 8 <= len(stopped) < 24
    again = run(frame.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(again.frame, whole.frame)
    assert again.stopped_early(24) == {policy_of(1).digest(): "kl_nats surely > 0.01"}


def test_a_candidate_with_all_samples_was_not_stopped_early() -> None:
    frame = table_of({1: [0.1] * 12, 2: [0.1] * 12}, {1: [0.0] * 12, 2: [0.0] * 6}, 12)
    course = Course(Racing(LIMITS, 0.95))
    course.tell(frame, [], [policy_of(layer) for layer in (LAYERS, 1, 2)])
    assert course.stopped_early(24) == {policy_of(2).digest(): "kl_nats surely > 0.01"}
    assert Course(None).stopped_early(24) == {}


def stopped_measurement(layer: int, why: str = "kl_nats surely > 0.01", samples: int = 5) -> Measurement:
    return row_of(layer, 10).measurement.model_copy(
        update={"stopped": why, "calibration_samples": samples, "selection_samples": samples}
    )


def test_the_store_prefers_complete_measurements_and_the_last_of_the_others(tmp_path: Path) -> None:
    store = RecordStore(tmp_path, {})
    first, later = stopped_measurement(3), stopped_measurement(3, samples=10)
    for row in (first, later):
        store.add_measurement(row)
        assert store.measurements()[row.policy.digest()] == row
    complete = row_of(3, 10).measurement
    store.add_measurement(complete)
    store.add_measurement(first)
    digest = complete.policy.digest()
    assert store.measurements() == {digest: complete}
    assert store.measurements({digest: "kl_nats surely > 0.01"}) == {digest: first}
    assert store.measurements({digest: "accuracy_drop surely > 0.1"}) == {}


def test_a_stopped_candidate_is_judged_by_what_there_is_and_never_chosen() -> None:
    frame = table_of({1: [0.0] * 1}, {1: [0.0] * 1}, 12)
    whole = table_of({2: [0.0] * 12}, {2: [0.0] * 12}, 12)
    reference = whole[whole["policy"] == Policy.keep_all().digest()]
    limits = Limits(**{**LIMITS.__dict__, "slices": {"kind": {"kl_nats": 0.01}}, "at_most": {"latency_ms": 1.0}})
    own = frame[frame["policy"] == policy_of(1).digest()]
    measurement = stopped_measurement(1, samples=1)
    judged = judge(limits, measurement, own, reference)
    # One sample of slice a: slice b was not reached, and times are not measured.
    assert [each.limit for each in judged] == ["kl_nats", "kl_tail", "accuracy_drop", "kl_nats[kind=a]"]
    assert all(each.holds for each in judged)
    rows = [row_of(LAYERS, 1000), Row(measurement, judged), row_of(5, 500)]
    assert not rows[1].feasible
    assert rows[1].status == "raced out after 1 + 1 samples: kl_nats surely > 0.01"
    assert choose(rows).chosen.measurement.layer == 5
    assert not choose(rows).rows[1].on_front
    assert choose(rows[:2]).chosen.measurement.policy.is_keep_all


def test_a_stopped_candidate_is_a_pruned_trial_and_a_complete_one_another(tmp_path: Path) -> None:
    keep_all, complete = row_of(LAYERS, 1000), row_of(3, 10)
    stopped = Row(stopped_measurement(3), complete.judgements)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    for rows in ([keep_all, stopped], [keep_all, stopped], [keep_all, complete], [keep_all, complete]):
        study = record_trials(storage, "t", rows, LIMITS, {})
    states = [trial.state for trial in study.trials]
    assert states == [optuna.trial.TrialState(state) for state in (1, 2, 1)]


def test_who_is_brought_back_is_named() -> None:
    assert brought_back(["a", "b"]).endswith("missing samples: 2, a, b")
    assert brought_back([str(n) for n in range(30)], most=2).endswith("30, 0, 1 and 28 more")
    assert Race(0.0, 0.0, 1.0, 0.95).stops(np.array([[np.nan, 1.0], [0.0, 0.5], [0.0, np.nan]])).tolist() == [
        False, True, False
    ]  # fmt: skip


def test_the_saving_is_what_was_not_scored() -> None:
    """Batches of 4 and 2 samples; policy 1 has 4 of 6, and costs 8 of the 12 layer-tokens of branches."""
    frame = pd.concat([
        records(layer, "calibration", [0.0] * count, [1.0] * count)
        for layer, count in ((LAYERS, 6), (1, 4), (2, 6))
    ])  # fmt: skip
    rows = [row_of(LAYERS, 9).measurement, stopped_measurement(1), row_of(2, 9).measurement]

    def cost(policies: Sequence[Policy]) -> LayerTokens:
        return LayerTokens(10, 8 * (policy_of(1) in policies) + 4 * (policy_of(2) in policies))

    result = racing_result(rows, frame, cost, 4, 0.95)
    assert (result.stopped, result.candidates) == (1, 3)
    assert result.branch_work_saved == pytest.approx(2 * 8 / (6 * 12))
    assert result.work_saved == pytest.approx(2 * 8 / (6 * 22))
    assert result.text.startswith("racing stopped 1 of 3 candidates early and saved 22% of the branch work, 12% of all")
    failed = [*rows, Measurement(task="t", policy=policy_of(3), layer=3, failure="nan")]
    assert racing_result(failed, frame, cost, 4, 0.95).branch_work_saved == result.branch_work_saved


def test_the_extent_of_a_sample() -> None:
    visual = torch.tensor([[False, False, True, True, True, False]])
    assert extent_of(TokenLayout(visual, torch.zeros_like(visual)), 2.5) == Extent(2, 1 + 1.5, 3)
