"""What a measurement is identified by: any part that changes leaves old records alone, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from profilers import environment
from vtw_search import records
from vtw_search.config import load_config
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import Splits
from vtw_search.evaluation.tasks import digits
from vtw_search.policies import Policy
from vtw_search.preparation import _study_settings
from vtw_search.records import Measurement, RecordStore, SampleRecord
from vtw_search.search.profile import profile_identity
from vtw_search.search.study import Study
from vtw_search.search.study_settings import SEARCH_SPLITS, StudySettings


class Quiet:
    def start(self, description: str, total: int, done: int = 0) -> None: ...

    def advance(self, units: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def splits() -> Splits:
    samples, names = list(digits.load_pool("holdout")), ("calibration", "selection", "confirmation", "holdout")
    return Splits({name: samples[3 * place : 3 * place + 3] for place, name in enumerate(names)})


@pytest.fixture
def study(loaded: LoadedModel, splits: Splits, tmp_path: Path) -> Study:
    return Study(loaded, splits, StudySettings("t", 8, 10, 0, tmp_path), Quiet())


def changed(study: Study, **settings: Any) -> Study:
    return Study(study.loaded, study.splits, replace(study.settings, **settings), Quiet())


def of_model(study: Study, **parts: Any) -> Study:
    loaded = replace(study.loaded, identity={**study.loaded.identity, **parts})
    return Study(loaded, study.splits, study.settings, Quiet())


def of_sample(study: Study, split: str, **parts: Any) -> Study:
    samples = {name: list(each) for name, each in study.splits.samples.items()}
    samples[split][1] = replace(samples[split][1], **parts)
    return Study(study.loaded, Splits(samples), study.settings, Quiet())


PARTS: dict[str, Callable[[Study], Study]] = {
    "model": lambda study: of_model(study, model="another"),
    "revision": lambda study: of_model(study, revision="0123"),
    "shape": lambda study: of_model(study, config="0123"),
    "weights": lambda study: of_model(study, tensors="0123"),
    "processor and generation settings": lambda study: of_model(study, settings="0123"),
    "device": lambda study: of_model(study, device="a GPU"),
    "dtype": lambda study: of_model(study, dtype="bfloat16"),
    "attention": lambda study: of_model(study, attention="eager"),
    "versions": lambda study: of_model(study, versions={"torch": "3"}),
    "task": lambda study: changed(study, task="another"),
    "length of answers": lambda study: changed(study, max_new_tokens=9),
    "batch size": lambda study: changed(study, batch_size=11),
    "prompt": lambda study: of_sample(study, "selection", prompt="another"),
    "answers": lambda study: of_sample(study, "selection", answers=("another",)),
    "metric": lambda study: of_sample(study, "calibration", metric="anls"),
    "cluster": lambda study: of_sample(study, "calibration", cluster="another"),
    "slices": lambda study: of_sample(study, "calibration", slices={"kind": "another"}),
    "image": lambda study: of_sample(study, "selection", images=study.splits["holdout"][0].images),
    "order": lambda study: Study(
        study.loaded,
        Splits({name: list(each)[::-1] for name, each in study.splits.samples.items()}),
        study.settings,
        Quiet(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_any_part_that_changes_is_another_store(study: Study, part: str) -> None:
    assert PARTS[part](study).store(SEARCH_SPLITS).folder != study.store(SEARCH_SPLITS).folder


def test_a_new_version_of_the_records_is_another_store(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = study.store(SEARCH_SPLITS).folder
    monkeypatch.setattr(records, "RECORDS_VERSION", 99)
    assert changed(study).store(SEARCH_SPLITS).folder != before


def test_splits_that_are_not_looked_at_do_not_matter(study: Study) -> None:
    other = of_sample(study, "holdout", prompt="another")
    assert other.store(SEARCH_SPLITS).folder == study.store(SEARCH_SPLITS).folder
    assert other.store(("holdout",)).folder != study.store(("holdout",)).folder


def test_how_a_search_is_run_is_no_part_of_it(study: Study) -> None:
    assert changed(study, timeout_s=3.0).store(SEARCH_SPLITS).folder == study.store(SEARCH_SPLITS).folder
    name = load_config("task=digits_read").search_name
    postgres = ("storage=postgres", "storage.url=postgresql://me@host/db")
    for how in (
        ["worker=3"],
        ["storage=journal"],
        postgres,
        ["tracking=none"],
        ["runs=elsewhere"],
        ["profile.max_seconds=3"],
    ):
        assert load_config("task=digits_read", *how).search_name == name


def test_policies_are_told_apart_within_a_store_and_timing_within_measurements(study: Study) -> None:
    store = study.store(SEARCH_SPLITS)
    for layer in (3, 4):
        store.add_measurement(Measurement(task="t", policy=Policy.withdraw(layer), layer=layer))
    assert set(store.measurements()) == {Policy.withdraw(3).digest(), Policy.withdraw(4).digest()}
    timed = changed(study, repeats=5).store(SEARCH_SPLITS)
    assert (timed.folder, timed.measurements()) == (store.folder, {})


def test_how_long_times_are_waited_for_tells_no_measurements_apart(study: Study) -> None:
    store = changed(study, repeats=5).store(SEARCH_SPLITS)
    store.add_measurement(Measurement(task="t", policy=Policy.withdraw(3), layer=3))
    settings = _study_settings(load_config("task=digits_read", "profile.max_seconds=3"), "digits_read", study.loaded)
    assert settings.max_seconds == 3.0
    patient = changed(study, repeats=5, max_seconds=settings.max_seconds)
    assert patient.profiler.max_seconds == 3.0
    assert patient.store(SEARCH_SPLITS).measurements() == store.measurements() != {}


@pytest.mark.parametrize("part", ["get_num_threads", "_cpu_name"])
def test_times_are_of_one_machine_and_counts_of_any(study: Study, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, timed = study.store(SEARCH_SPLITS), changed(study, repeats=5).store(SEARCH_SPLITS)
    for store in (counted, timed):
        store.add_measurement(Measurement(task="t", policy=Policy.withdraw(3), layer=3))
    assert changed(study, repeats=5).store(SEARCH_SPLITS).measurements()
    monkeypatch.setattr(environment if part == "_cpu_name" else torch, part, lambda: 99)
    assert changed(study, repeats=5).store(SEARCH_SPLITS).measurements() == {}
    assert study.store(SEARCH_SPLITS).measurements() == counted.measurements()
    assert changed(study, repeats=5).store(SEARCH_SPLITS).folder == counted.folder


def test_the_name_of_a_gpu_decides_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    first, second = (profile_identity(5, torch.device("cuda", number)) for number in (0, 1))
    assert first != second != profile_identity(5, torch.device("cpu"))
    assert profile_identity(0, torch.device("cuda", 0)) == profile_identity(0, torch.device("cpu")) == {"repeats": 0}


def record(layer: int, sample: str) -> SampleRecord:
    return SampleRecord(
        Policy.withdraw(layer).digest(),
        "selection",
        0,
        sample,
        "c",
        "{}",
        1,
        0.1,
        0.1,
        0.1,
        0.1,
        0.1,
        0.1,
        True,
        "a",
        1.0,
    )


def test_the_same_work_done_twice_is_one_shard_and_a_record_counts_once(tmp_path: Path) -> None:
    store = RecordStore.of_identity(tmp_path, {"a": 1}, {})
    store.add_samples([record(3, "x"), record(4, "x")])
    store.add_samples([record(4, "x"), record(3, "x")])
    assert len(list(store.folder.glob("samples-*.parquet"))) == 1
    store.add_samples([record(3, "x"), record(3, "y")])
    assert len(store.samples()) == 3


def test_measurements_depend_on_what_was_measured_alone(study: Study) -> None:
    """A study that is asked again measures nothing; with another identity, everything."""
    policies, scored = [Policy.keep_all(), Policy.withdraw(5)], list[int]()

    class Counting(Study):
        def _score(self, store: RecordStore, *arguments: Any, **options: Any) -> None:
            before = len(store.samples())
            super()._score(store, *arguments, **options)
            scored.append(len(store.samples()) - before)

    for each in (study, study, changed(study, batch_size=2)):
        Counting(each.loaded, each.splits, each.settings, Quiet()).measure(policies)
    assert scored == [6, 6, 0, 0, 6, 6]
