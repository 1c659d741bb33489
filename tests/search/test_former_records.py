"""Records are of the rules that their policy uses: registering a rule orphans none, and records of before still count.

Before, a store was identified by the version of everything registered and by a hash of the model's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.search.test_identity import Quiet
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import Splits
from vtw_search.evaluation.tasks import digits
from vtw_search.operators import OPERATORS
from vtw_search.operators.withdraw import Withdraw
from vtw_search.policies import Policy, ScorerChoice, Stage
from vtw_search.records import frame_of
from vtw_search.scorers import SCORERS
from vtw_search.search.examination import Examination
from vtw_search.search.ledger import HoldoutLedger, Look
from vtw_search.search.limits import Limits
from vtw_search.search.noise import NoiseQuestion
from vtw_search.search.study import Study
from vtw_search.search.study_settings import CONFIRMATION, HOLDOUT, SEARCH_SPLITS, StudySettings

LIMITS = Limits(0.01, "answer", "reference_candidate", confidence=0.95)
PRUNED = Policy(stages=(Stage(layer=2, operator="prune", keep=0.5, scorer=ScorerChoice(name="uniform")),))
POLICIES = [Policy.keep_all(), Policy.withdraw(5), PRUNED]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def splits() -> Splits:
    samples, names = list(digits.load_pool("holdout")), ("calibration", "selection", "confirmation", "holdout")
    return Splits({name: samples[2 * place : 2 * place + 2] for place, name in enumerate(names)})


@pytest.fixture
def make(loaded: LoadedModel, splits: Splits, tmp_path: Path) -> Callable[[], Study]:
    return lambda: Study(loaded, splits, StudySettings("t", 8, 10, 0, tmp_path / "_records"), Quiet())


class Another(Withdraw):
    name = "another"


def former_identity(study: Study, splits: tuple[str, ...]) -> dict[str, Any]:
    """Build the identity as it was, by its rule of then."""
    [files, *_] = (each["files"] for each in study.loaded.former_identities())
    today = {name: part for name, part in study.identity(splits).items() if name not in ("tensors", "settings")}
    return {
        **today,
        "files": files,
        "operators": {name: operator.scoring_version for name, operator in OPERATORS.items()},
        "scorers": {name: scorer.scoring_version for name, scorer in SCORERS.items()},
    }


def digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def as_before(study: Study, *splits: tuple[str, ...]) -> None:
    """Turn the stores of a study into what an earlier version would have written."""
    for each in splits:
        store, identity = study.store(each), {"records": 4, **former_identity(study, each)}
        rows = store.samples().drop(columns="versions")
        for path in store.folder.glob("samples-*.parquet"):
            path.unlink()
        rows.to_parquet(store.folder / "samples-0.parquet", index=False)
        for path in store.folder.glob("measurements*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                del line["versions"], line["metrics"]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for path in store.folder.glob("noise-*-*-*.json"):
            path.rename(path.with_name(path.name.rpartition("-")[0] + ".json"))
        (store.folder / "identity.json").write_text(json.dumps(identity))
        store.folder.rename(store.folder.with_name(digest(identity)))


def test_a_rule_that_is_registered_orphans_nothing(
    make: Callable[[], Study], passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make().measure(POLICIES).measurements
    monkeypatch.setitem(OPERATORS, "another", Another())
    assert make().measure(POLICIES).measurements == before
    assert passes == [3, 3]


@pytest.mark.parametrize("name,again", [("prune", 1), ("uniform", 1), ("withdraw", 1), ("select", 0), ("random", 0)])
@pytest.mark.parametrize("former", [False, True])
def test_a_version_that_is_raised_is_measured_again_where_it_is_used(
    make: Callable[[], Study], passes: list[int], monkeypatch: pytest.MonkeyPatch, name: str, again: int, former: bool
) -> None:
    make().measure(POLICIES)
    if former:
        as_before(make(), SEARCH_SPLITS)
    owner = OPERATORS.get(name) or SCORERS[name]
    monkeypatch.setattr(type(owner), "scoring_version", 99)
    passes.clear()
    assert len(make().measure(POLICIES).measurements) == 3
    assert passes == [again] * 2 * again
    passes.clear()
    make().measure(POLICIES)
    assert passes == [], "and then it is there"


def test_what_was_measured_before_is_not_measured_again(
    make: Callable[[], Study], passes: list[int], tmp_path: Path
) -> None:
    study, ledger = make(), HoldoutLedger(tmp_path)
    noise = NoiseQuestion(study, LIMITS, 2, ["batch"], lambda dtype: study.loaded)
    found = study.measure(POLICIES).measurements
    floor, of_policy = noise.floor(), noise.of_policy(PRUNED)
    study.measure_confirmation([PRUNED])
    study.measure_holdout(PRUNED)
    for split, policies, under in (("confirmation", PRUNED, LIMITS), ("holdout", PRUNED, None)):
        records = digest(former_identity(study, CONFIRMATION if under else HOLDOUT))
        noted = Look(
            search="s", task="t", samples=study.splits.digest(split), policy=policies.label(), split=split,
            records=records, under=None if under is None else digest(dict(under.as_dict())),
        )  # fmt: skip
        ledger.look(noted, [])
    as_before(study, SEARCH_SPLITS, CONFIRMATION, HOLDOUT)
    passes.clear()
    study, examination = make(), Examination(make(), ledger, "s")
    assert study.measure(POLICIES).measurements == found
    assert (study.is_known("confirmation", [PRUNED]), study.is_known("holdout", [PRUNED])) == (True, True)
    assert examination.look_to_test(LIMITS, [PRUNED]) == 1
    examination._look_at_holdout(PRUNED)
    assert (ledger.count("t", "confirmation"), ledger.count("t")) == (1, 1), "no look is counted twice"
    noise = NoiseQuestion(study, LIMITS, 2, ["batch"], lambda dtype: pytest.fail("measured again"))
    assert (noise.floor(), noise.of_policy(PRUNED)) == (floor, of_policy)
    assert passes == []


def test_records_of_another_model_stay_alone(make: Callable[[], Study], passes: list[int]) -> None:
    study = make()
    study.measure(POLICIES)
    as_before(study, SEARCH_SPLITS)
    [path] = study.settings.store.glob("*/identity.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": "0123"}))
    passes.clear()
    make().measure(POLICIES)
    assert passes == [3, 3]


def test_a_killed_search_of_before_leaves_records_without_measurements(
    make: Callable[[], Study], passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make().measure(POLICIES)
    as_before(make(), SEARCH_SPLITS)
    [path] = make().settings.store.glob("*/measurements*.jsonl")
    path.unlink()
    passes.clear()
    make().measure(POLICIES)
    assert passes == [], "nothing that is registered has changed, so that they hold whatever their policies use"
    monkeypatch.setattr(SCORERS["random"], "scoring_version", 99, raising=False)
    assert set(make().store(SEARCH_SPLITS).samples()["policy"]) == {policy.digest() for policy in POLICIES}


def test_the_columns_of_records_have_types_without_any() -> None:
    assert str(frame_of([])["versions"].dtype) == "string"
