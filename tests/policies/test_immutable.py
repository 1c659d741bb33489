"""Nothing of a policy set can be changed, so that its hash and digest stay those of its content."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, ValidationError

from tests.policies.strategies import MODEL, policy_sets
from vtw_search import Policy, PolicySet, Stage
from vtw_search.facts import Missing, ModelFacts
from vtw_search.policies import Certificate, ScorerChoice, TaskPolicy
from vtw_search.runtime import make_ready

CHANGES: list[Callable[[Any], Any]] = [
    lambda found: found.__setitem__("x", 1),
    lambda found: found.update(x=1),
    lambda found: found.setdefault("x", 1),
    lambda found: found.pop("x", None),
    lambda found: found.popitem(),
    lambda found: found.clear(),
    lambda found: found.__delitem__(next(iter(found), "x")),
    lambda found: found.__ior__({"x": 1}),
]


def full() -> PolicySet:
    scorer = ScorerChoice(name="random", options={"seed": 3})
    stage = Stage(layer=2, operator="prune", keep=0.5, scorer=scorer, options={"mode": "mean"})
    task = TaskPolicy(
        policy=Policy(stages=(stage,)),
        limits={"at_most": {"macs": 1.0}},
        measured={"search": {"list": [{"a": [1]}]}},
        dataset_digests={"holdout": "ab"},
    )
    certificate = Certificate(
        model_type="m", config_digest="0", torch="2", transformers="5", deviations={"2 removing equals masking": 0.0}
    )
    return PolicySet(model=MODEL, tasks={"t": task}, certificate=certificate, provenance={"versions": {"torch": "2"}})


def parts(value: Any) -> Iterator[Any]:
    """Yield a value and everything inside it."""
    yield value
    inner = (
        value.__dict__.values()
        if isinstance(value, BaseModel)
        else value.values()
        if isinstance(value, Mapping)
        else ()
    )
    for part in value if isinstance(value, list | tuple | set) else inner:
        yield from parts(part)


def test_every_part_of_a_policy_set_is_one_that_cannot_be_changed() -> None:
    policies = full()
    before = hash(policies), policies.tasks["t"].policy.digest()
    assert not [part for part in parts(policies) if isinstance(part, list | set | bytearray)]
    mappings = [part for part in parts(policies) if isinstance(part, Mapping)]
    assert len(mappings) == 12
    for found in mappings:
        for change in CHANGES:
            with pytest.raises(TypeError, match="cannot be changed"):
                change(found)
    for record in (part for part in parts(policies) if isinstance(part, BaseModel)):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(record, next(iter(type(record).model_fields)), None)
    assert (hash(policies), policies.tasks["t"].policy.digest()) == before


def test_what_a_policy_is_made_of_can_change_without_it() -> None:
    options: dict[str, Any] = {"seed": 3}
    scorer = ScorerChoice(name="random", options=options)
    options["seed"] = 4
    assert scorer.options == {"seed": 3}


@settings(max_examples=40)
@given(policy_sets)
def test_copies_and_pickles_are_equal_and_hash_alike(policies: PolicySet) -> None:
    for again in (
        copy.copy(policies),
        copy.deepcopy(policies),
        pickle.loads(pickle.dumps(policies)),
        policies.model_copy(),
    ):
        assert again == policies
        assert hash(again) == hash(policies)


def test_a_copy_with_changes_is_checked_and_frozen() -> None:
    found = full().model_copy(update={"tasks": {"t": TaskPolicy(policy=Policy())}, "provenance": {"a": [1]}})
    assert hash(found) == hash(PolicySet.model_validate(dict(found)))
    with pytest.raises(ValidationError, match="choose another name"):
        full().model_copy(update={"tasks": {"../x": TaskPolicy(policy=Policy())}})
    with pytest.raises(ValidationError, match="layer"):
        Stage(layer=2, operator="withdraw").model_copy(update={"layer": 0})


def test_what_is_looked_up_for_a_policy_cannot_be_changed_either() -> None:
    missing = {"recount": Missing("r", "r")}
    facts = ModelFacts(MODEL, 12, first_layer=1, last_layer=11, attention="sdpa", missing=missing)
    assert hash(facts) == hash(ModelFacts(MODEL, 12, first_layer=1, last_layer=11, attention="sdpa", missing=missing))
    stage = Stage(layer=2, operator="prune", keep=0.5, scorer=ScorerChoice(name="random"))
    [ready] = make_ready(Policy(stages=(stage,)), facts)
    for found in (facts.missing, ready.options, ready.scorer_options):
        with pytest.raises(TypeError, match="cannot be changed"):
            found["seed"] = 1  # type: ignore[index]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", None, [1], {"a": 1}])
def test_an_option_is_one_that_a_file_can_hold(value: Any) -> None:
    with pytest.raises(ValidationError):
        Stage(layer=2, operator="prune", options={"a": value})


@pytest.mark.parametrize("change", [{"operator": "\ud800"}, {"keep": "\ud800"}, {"options": {"\ud800": 1}}])
def test_a_name_is_text(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="surrogates"):
        Stage.model_validate({"layer": 2, "operator": "prune", **change})
