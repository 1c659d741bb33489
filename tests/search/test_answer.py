"""Limits, front and choice, against brute force on random tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtw_search.errors import ConfigError, StoreError
from vtw_search.facts import ModelFacts, ModelFingerprint
from vtw_search.policies import Policy
from vtw_search.records import Measured, Measurement, RecordStore, SampleRecord
from vtw_search.results import Judgement, Row
from vtw_search.search.answer import accuracy_warning, choose, judged_rows
from vtw_search.search.front import mark_front
from vtw_search.search.limits import Limits, limits_for_task
from vtw_search.search.space import candidates_of, make_space
from vtw_search.search.trials import record_trials

LAYERS = 8
NO_LIMITS = Limits(None, "answer", "reference_candidate", None, None, None)


def measurement(layer: int, accuracy: float, macs: int, kl: float, failure: str | None = None) -> Measurement:
    policy = Policy.keep_all() if layer == LAYERS else Policy.withdraw(layer=layer)
    if failure:
        return Measurement(task="t", policy=policy, layer=layer, failure=failure)
    return Measurement(
        task="t", policy=policy, layer=layer, accuracy=accuracy, macs=macs, kl_answer_nats=kl, macs_ratio=macs / 100,
        accuracy_drop=1 - accuracy, accuracy_drop_low=1 - accuracy - 0.01, accuracy_drop_high=1 - accuracy + 0.01,
    )  # fmt: skip


def row(number: int, numbers: tuple[float, int, float, float, bool]) -> Row:
    accuracy, macs, kl, excess, failed = numbers
    judgement = Judgement("kl_nats", 1.0, 1.0 + excess, 0.0, 9.0, f"kl_nats {1 + excess} > 1")
    layer = LAYERS if number == 0 else number
    return Row(measurement(layer, accuracy, macs, kl, "nan" if failed else None), () if failed else (judgement,))


KEEP_ALL = (1.0, 100, 0.0, -1.0, False)
tables = st.lists(
    st.tuples(
        st.sampled_from([0.5, 0.9, 1.0]), st.integers(50, 53), st.sampled_from([0.0, 0.1]),
        st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.booleans(),
    ),
    max_size=LAYERS - 1,
)  # fmt: skip


def test_a_time_that_should_not_be_relied_upon_has_a_question_mark() -> None:
    rows = [row(0, KEEP_ALL), row(1, (0.9, 50, 0.0, -1.0, False))]
    timed = {"latency_ms": 1.0, "latency_ratio": 0.8}
    for problems, text in ((None, "0.80 of the prefill time"), ("others were busy", "0.80? of the prefill time")):
        changes = {**timed, "latency_problems": problems}
        fast = replace(rows[1], measurement=rows[1].measurement.model_copy(update=changes))
        assert text in choose([rows[0], fast]).verdict


def test_a_model_that_answers_nothing_rightly_is_warned_of() -> None:
    silent, right = row(0, (0.0, 100, 0.0, -1.0, False)), row(0, KEEP_ALL)
    limited = replace(NO_LIMITS, accuracy_drop=0.02)
    assert "WARNING: keep-all scores 0 on all" in accuracy_warning(limited, silent)
    assert accuracy_warning(replace(NO_LIMITS, slices={"a=b": {"accuracy_drop": 0.1}}), silent)
    assert not accuracy_warning(NO_LIMITS, silent)
    assert not accuracy_warning(limited, right)


@given(tables)
def test_the_front_is_what_no_feasible_row_dominates(table: list[Any]) -> None:
    rows = [row(number, numbers) for number, numbers in enumerate([KEEP_ALL, *table])]
    for marked in mark_front(rows):
        if not marked.feasible:
            assert not marked.on_front
            continue
        own = marked.measurement
        better = [
            other for other in rows
            if other.feasible and other.measurement.accuracy >= own.accuracy and other.measurement.macs <= own.macs
            and (other.measurement.accuracy, other.measurement.macs) != (own.accuracy, own.macs)
        ]  # fmt: skip
        assert marked.on_front == (not better)


@given(tables)
def test_the_choice_is_the_preferred_feasible_row_or_keep_all(table: list[Any]) -> None:
    rows = [row(number, numbers) for number, numbers in enumerate([KEEP_ALL, *table])]
    answer = choose(rows)
    feasible = [each.measurement for each in rows[1:] if each.feasible]
    if feasible:
        best = sorted(feasible, key=lambda m: (m.macs, -m.accuracy, m.kl_answer_nats, -m.layer))[0]
        assert answer.chosen.measurement == best
    else:
        assert answer.chosen.measurement.policy == Policy.keep_all()
        broken = [each for each in rows[1:] if each.judgements]
        assert ("closest is" in answer.verdict) == bool(broken)
        if broken:
            least = min(broken, key=lambda each: each.judgements[0].excess)
            assert least.status in answer.verdict
    assert [each.chosen for each in answer.rows].count(True) == 1


def store_with(tmp_path: Path, kl_by_layer: dict[int, list[float]]) -> tuple[RecordStore, list[Policy]]:
    """A store in which each layer has the given KL(candidate || reference) at the first token, sample by sample."""
    store = RecordStore(tmp_path / "store", {"test": 1})
    policies = []
    for layer, values in kl_by_layer.items():
        numbers = measurement(layer, 1.0, 10 + layer, 0.0)
        policies.append(numbers.policy)
        store.add_samples([
            SampleRecord(
                policy=numbers.policy.digest(), split="calibration", position=position, sample=str(position),
                cluster=str(position), slices="{}", answer_tokens=1, kl_answer_nats=9.0, kl_answer_reverse_nats=9.0,
                kl_answer_sum_nats=9.0, kl_answer_reverse_sum_nats=9.0, kl_first_nats=9.0, kl_first_reverse_nats=value,
                agreement=True, answer="a", score=1.0,
            )
            for position, value in reversed(list(enumerate(values)))
        ])  # fmt: skip
        store.add_measurement(numbers)
    return store, policies


def all_of(store: RecordStore) -> Measured:
    return Measured(store.measurements(), store.samples(), str(store.folder))


PAPER = Limits(0.003, "first_token", "candidate_reference", 20, None, 5)


def test_the_published_rule_takes_the_first_layer_from_5_on_at_or_below_eta(tmp_path: Path) -> None:
    # Layer 3 is good but below 5; layer 6 is bad only after the 20th sample; layer 5 is bad within them.
    kl = {
        8: [0.0] * 30,
        3: [0.0] * 30,
        5: [0.0] * 19 + [0.2] + [0.0] * 10,
        6: [0.0029] * 20 + [5.0] * 10,
        7: [0.0] * 30,
    }
    store, policies = store_with(tmp_path, kl)
    answer = choose(judged_rows(all_of(store), policies, PAPER))
    assert answer.chosen.measurement.layer == 6
    status = {each.measurement.layer: each.status for each in answer.rows}
    assert status[3] == "layer 3 < 5"
    assert status[5] == "kl_nats 0.01 > 0.003"


def test_a_missing_measurement_is_an_error(tmp_path: Path) -> None:
    store, policies = store_with(tmp_path, {8: [0.0]})
    with pytest.raises(StoreError, match="withdraw@3"):
        judged_rows(all_of(store), [*policies, Policy.withdraw(layer=3)], NO_LIMITS)


def test_a_task_override_beats_the_asked_limit_beats_the_tasks_default() -> None:
    asked = {**NO_LIMITS.as_dict(), "kl_nats": "task", "accuracy_drop": 0.5}
    defaults = {"kl_nats": 0.01, "accuracy_drop": 0.03}
    limits = limits_for_task(asked, defaults, {})
    assert (limits.kl_nats, limits.accuracy_drop) == (0.01, 0.5)
    limits = limits_for_task(asked, defaults, {"kl_nats": None, "accuracy_drop": 0.1})
    assert (limits.kl_nats, limits.accuracy_drop) == (None, 0.1)


def test_optuna_reads_the_trials_and_their_feasibility(tmp_path: Path) -> None:
    rows = [
        row(0, KEEP_ALL),
        row(1, (0.9, 40, 0.1, 0.5, False)),
        row(2, (0.9, 50, 0.1, -0.5, False)),
        row(3, (0, 0, 0, 0, True)),
    ]
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/optuna.db")
    for _ in range(2):
        record_trials(storage, "t", rows, NO_LIMITS, {"data": 1})
    [name] = optuna.get_all_study_names(f"sqlite:///{tmp_path}/optuna.db")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path}/optuna.db")
    assert len(study.trials) == 4
    assert study.metric_names == ["accuracy", "macs"]
    assert {trial.params["layer"] for trial in study.best_trials} == {LAYERS, 2}
    assert study.trials[3].state == optuna.trial.TrialState.FAIL
    record_trials(storage, "t", rows, PAPER, {"data": 1})
    record_trials(storage, "t", rows, NO_LIMITS, {"data": 2})
    assert len(optuna.get_all_study_names(f"sqlite:///{tmp_path}/optuna.db")) == 3


def facts(layers: int) -> ModelFacts:
    fingerprint = ModelFingerprint(id="m", revision=None, type="llava", num_layers=layers, config_digest="0")
    return ModelFacts(fingerprint, layers, 1, layers, "sdpa")


@settings(max_examples=30)
@given(st.integers(2, 40))
def test_the_space_is_keep_all_and_every_layer_once(layers: int) -> None:
    labels = [policy.label() for policy in candidates_of(make_space(facts(layers), {"vtw": {}}, None))]
    assert labels == ["keep-all", *(f"withdraw@{layer}" for layer in range(1, layers))]


@pytest.mark.parametrize("first,last", [(0, 3), (4, 3), (1, 12), (12, 12), (13, 11)])
def test_a_range_outside_the_model_is_refused(first: int, last: int) -> None:
    with pytest.raises(ConfigError, match=r"1\.\.11"):
        make_space(facts(12), {"vtw": {}}, (first, last))


def test_records_survive_the_store_and_repeats_change_nothing(tmp_path: Path) -> None:
    store, _ = store_with(tmp_path, {3: [0.1, 0.2], 5: [0.3]})
    before = store.samples()
    store_with(tmp_path, {5: [0.3], 3: [0.1, 0.2]})
    pd.testing.assert_frame_equal(store.samples(), before)
    assert before["kl_first_reverse_nats"].tolist() == pytest.approx(
        before.sort_values(["policy", "sample"])["kl_first_reverse_nats"].tolist()
    )
    assert len(before) == 3
    assert len(store.measurements()) == 2


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    store, _ = store_with(tmp_path, {3: [0.1]})
    shard = next(store.folder.glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreError, match=shard.name):
        store.samples()
