"""Slices of the content and the measured one: what they are, what they cost nobody, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.search.records import LAYERS, policy_of, records
from tests.search.test_noise import Quiet
from tests.search.test_quality_limits import limits
from vtw_search.errors import ConfigError, EvidenceError, UnknownNameError
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import Splits
from vtw_search.evaluation.tasks import Sample, load_pools
from vtw_search.facts import Missing
from vtw_search.policies import Policy
from vtw_search.records import Measurement, RecordStore
from vtw_search.results import Row
from vtw_search.search.examination import Examination
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.racing import Racing
from vtw_search.search.reach import check_names, check_slices, judging, reach
from vtw_search.search.slices import Slices, pooled_grid, slices_in, with_slices
from vtw_search.search.study import Study
from vtw_search.search.study_settings import CONFIRMATION, HOLDOUT, SEARCH_SPLITS, StudySettings

POOLED = policy_of(1)


def sample(name: str, prompt: str = "what is it?", **slices: str) -> Sample:
    return Sample(name, (), prompt, ("a",), "exact_match", name, slices)


def scored(split: str, kept: Sequence[float], pooled: Sequence[float]) -> pd.DataFrame:
    """Records of keep-all and of what stands for the pooled grid."""
    pairs = ((LAYERS, kept), (1, pooled))
    return pd.concat([records(layer, split, [0.0] * len(scores), scores) for layer, scores in pairs])


def test_the_measured_slice_is_what_keep_all_answers_and_the_pooled_grid_does_not() -> None:
    samples = [sample(f"selection-{n}", digits="4") for n in range(5)]
    frame = scored("selection", [1, 1, 0, 0, 0.7], [1, 0, 1, 0, 0.4])
    slices = Slices(samples, POOLED)
    fails = [dict(each.slices)["downsampling_fails"] for each in slices.sliced(samples, frame)]
    assert fails == ["no", "yes", "no", "no", "yes"]
    table = with_slices(frame, slices.texts(frame))
    assert json.loads(table["slices"].iloc[1]) == {
        "digits": "4", "downsampling_fails": "yes", "question_type": "what", "answer_words": "1", "image_size": "small",
    }  # fmt: skip
    assert slices.are_known(samples, frame)


def test_without_such_a_limit_nothing_is_measured_for_it() -> None:
    samples, frame = [sample("selection-0")], scored("selection", [1], [0])
    slices = Slices(samples, None)
    assert slices.needed == []
    assert "downsampling_fails" not in slices.texts(frame)["selection-0"]


def test_a_pooled_grid_that_fails_is_an_error_with_its_reason() -> None:
    samples = [sample("selection-0"), sample("selection-1")]
    broken = records(1, "selection", [0.0], [1.0], failure="not supported: odd grid")
    frame = pd.concat([records(LAYERS, "selection", [0.0] * 2, [1.0] * 2), broken])
    frame.loc[frame["failure"].notna(), "score"] = float("nan")
    slices = Slices(samples, POOLED)
    assert not slices.are_known(samples, frame)
    with pytest.raises(EvidenceError, match=r"needs a pooled grid on every sample.*odd grid.*limits.slices"):
        slices.check(frame)


def test_a_model_whose_grid_cannot_be_pooled_is_refused_by_its_reason(loaded: LoadedModel) -> None:
    [stage] = pooled_grid(loaded.facts).stages
    assert (stage.operator, stage.keep, dict(stage.options)) == ("downsample", 0.25, {"mode": "mean"})
    assert stage.position == "keep"
    without = replace(loaded.facts, missing={"grids": Missing("its grid is unknown", "prune")})
    with pytest.raises(ConfigError, match=r"downsampling_fails needs a pooled grid.*its grid is unknown; leave"):
        pooled_grid(without)


RARE = limits(slices={"kind": {"kl_nats": 0.1, "accuracy_drop": 0.1}})
COMMON = [sample(f"c{n}", kind="a") for n in range(4)]


@pytest.mark.parametrize(
    "split,lacks",
    [
        ("calibration", ["accuracy_drop[kind=rare] has none in selection"]),
        ("selection", ["kl_nats[kind=rare] has none in calibration"]),
        (
            "confirmation",
            ["kl_nats[kind=rare] has none in calibration", "accuracy_drop[kind=rare] has none in selection"],
        ),
    ],
)
def test_a_limit_on_a_slice_without_a_sample_to_be_judged_by_is_refused(split: str, lacks: list[str]) -> None:
    splits = {"calibration": COMMON, "selection": COMMON, "confirmation": COMMON}
    check_slices("t", RARE, splits)
    with pytest.raises(ConfigError, match="every limit on a slice of t must have samples") as raised:
        check_slices("t", RARE, {**splits, split: [*COMMON, sample("r", kind="rare")]})
    assert raised.value.value == "; ".join(lacks)


def test_samples_that_the_kl_is_not_judged_on_do_not_count() -> None:
    splits = {"calibration": [*COMMON, sample("r", kind="b")], "selection": COMMON}
    asked = limits(slices={"kind=b": {"kl_nats": 0.1}})
    check_slices("t", asked, splits)
    with pytest.raises(ConfigError, match=r"kl_nats\[kind=b\] has none in calibration"):
        check_slices("t", replace(asked, kl_samples=4), splits)


def test_both_values_of_the_measured_slice_are_asked_for() -> None:
    asked = limits(slices={"downsampling_fails": {"accuracy_drop": 0.1}}, confidence=0.95)
    measured = [sample(f"m{n}", downsampling_fails="no") for n in range(40)]
    with pytest.raises(ConfigError, match=r"accuracy_drop\[downsampling_fails=yes\] has none in selection"):
        check_slices("t", asked, {"calibration": measured, "selection": measured})
    assert [each.in_reach for each in reach(asked, measured, 0.95)] == [True, False]
    assert reach(asked.without_slice("downsampling_fails"), measured, 0.95) == []
    assert asked.limits_slice("downsampling_fails")
    assert not asked.limits_slice("downsampling")


def test_every_task_has_derived_slices_and_the_names_are_told() -> None:
    check_names("t", limits(slices={"question_type=what": {"kl_nats": 0.1}}), COMMON, timed=False)
    check_names("t", limits(slices={"downsampling_fails=yes": {"kl_nats": 0.1}}), COMMON, timed=False)
    with pytest.raises(UnknownNameError, match=r"^t: .*'question_type=why'.*'question_type=what'.*per_task"):
        check_names("t", limits(slices={"question_type=why": {"kl_nats": 0.1}}), COMMON, timed=False)
    assert judging(limits()) == SEARCH_SPLITS
    assert judging(limits(confidence=0.9)) == (*SEARCH_SPLITS, *CONFIRMATION)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


def small_study(loaded: LoadedModel, folder: Path, pooled: Policy | None) -> Study:
    """A study of digits, which a pooled grid cannot read."""
    pool = load_pools("digits_read", {})["selection"]
    splits = {
        name: tuple(pool[9 * place : 9 * place + 9]) for place, name in enumerate((*SEARCH_SPLITS, *CONFIRMATION))
    }
    return Study(loaded, Splits(splits), StudySettings("t", 8, 3, 0, folder, pooled=pooled), Quiet())


def test_slices_are_no_part_of_what_is_stored(loaded: LoadedModel, tmp_path: Path) -> None:
    """Another definition, or a limit on the measured slice, brings no record into doubt."""
    plain = small_study(loaded, tmp_path, None)
    plain.measure([Policy.keep_all()])
    stored = plain.store(SEARCH_SPLITS).samples()
    assert set(map(frozenset, map(json.loads, stored["slices"]))) == {frozenset(["digits"])}
    assert set(json.loads(plain.samples(SEARCH_SPLITS)["slices"].iloc[0])) == {
        "digits", "question_type", "answer_words", "image_size",
    }  # fmt: skip
    limited = small_study(loaded, tmp_path, pooled_grid(loaded.facts))
    assert limited.store(SEARCH_SPLITS).folder == plain.store(SEARCH_SPLITS).folder


def test_without_such_a_limit_no_record_is_read_for_it(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler comes by before every round, and a store may have thousands of shards."""
    reads, whole = list[str](), RecordStore.samples

    def samples(self: RecordStore) -> pd.DataFrame:
        reads.append(self.folder.name)
        return whole(self)

    monkeypatch.setattr(RecordStore, "samples", samples)
    small_study(loaded, tmp_path, None).measure_slices(SEARCH_SPLITS)
    assert not reads
    small_study(loaded, tmp_path, pooled_grid(loaded.facts)).measure_slices(SEARCH_SPLITS)
    assert reads


def test_raced_batches_know_the_measured_slice(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race on the slice stops what it would stop with all records at hand."""
    study = small_study(loaded, tmp_path, pooled_grid(loaded.facts))
    study.measure_slices(SEARCH_SPLITS)
    written: list[int] = []
    monkeypatch.setattr(RecordStore, "add_samples", lambda _, found: written.append(len(found)))
    study.measure_slices(SEARCH_SPLITS)
    assert written == []
    monkeypatch.undo()
    found = slices_in([each for split in SEARCH_SPLITS for each in study.sliced(SEARCH_SPLITS, split)])
    assert ("downsampling_fails", "yes") in found
    asked = limits(slices={"downsampling_fails=yes": {"kl_nats": 0.001}}, kl_cap_nats=0.002)
    racing, bad = Racing(asked, 0.5, tuple(found)), Policy.withdraw(1).digest()
    measured = study.measure([Policy.keep_all(), Policy.withdraw(1)], racing)
    stopped = measured.measurements[bad].stopped
    assert stopped == "kl_nats[downsampling_fails=yes] surely > 0.001"
    assert racing.stopped(study.samples(SEARCH_SPLITS))[bad] == stopped
    assert (measured.samples["policy"] == bad).sum() < 18


def test_a_holdout_that_was_measured_for_its_slices_is_not_looked_at_yet(loaded: LoadedModel, tmp_path: Path) -> None:
    pool, pooled = load_pools("easy_vqa", {"kind": "shape"})["search"], pooled_grid(loaded.facts)
    splits = {name: tuple(pool[3 * place : 3 * place + 3]) for place, name in enumerate((*SEARCH_SPLITS, *HOLDOUT))}
    study = Study(loaded, Splits(splits), StudySettings("t", 8, 3, 0, tmp_path, pooled=pooled), Quiet())
    examination = Examination(study, HoldoutLedger(tmp_path), "s")

    def looks(policy: Policy) -> int:
        row = Row(Measurement(task="t", policy=policy, layer=1), ())
        return int(examination.holdout(row, limits())["evaluations_of_this_holdout"])

    # The pooled grid was measured with the first, but its numbers were not told before.
    assert [looks(each) for each in (Policy.withdraw(11), pooled, pooled)] == [1, 2, 2]
    # Those of keep-all are told with every other policy's.
    assert looks(Policy.keep_all()) == 2


def test_the_confirmation_split_gets_the_slice_from_its_own_records(loaded: LoadedModel, tmp_path: Path) -> None:
    study = small_study(loaded, tmp_path, pooled_grid(loaded.facts))
    frame = study.measure_confirmation([Policy.withdraw(11)])
    kept, pooled = (
        frame[frame["policy"] == policy.digest()].set_index("sample")["score"]
        for policy in (Policy.keep_all(), pooled_grid(loaded.facts))
    )
    own = frame[frame["policy"] == Policy.withdraw(11).digest()].set_index("sample")["slices"]
    by_hand = {name: "yes" if kept[name] == 1 and pooled[name] == 0 else "no" for name in own.index}
    assert {name: json.loads(text)["downsampling_fails"] for name, text in own.items()} == by_hand
