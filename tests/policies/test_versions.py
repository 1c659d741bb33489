"""Schema versions of policy files: the way there and back loses nothing, and version 1 means what it meant."""

from __future__ import annotations

import json
import math
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from pydantic import ValidationError

from tests.policies.strategies import MODEL, keeps, policies, policy_sets
from vtw_search import Policy, PolicySet, Stage, load_policy, save_policy
from vtw_search.errors import PolicyFileError
from vtw_search.policies import TaskPolicy, parse_policy, policy_content, policy_schema
from vtw_search.policies.policy_file import SCHEMA_PATHS
from vtw_search.records import Measurement

GOLDEN = Path(__file__).parent / "golden"
DIGESTS: dict[str, Any] = json.loads((GOLDEN / "digests.json").read_text())
FILES = [name for name in DIGESTS if name.endswith(".json")]


def prune(keep: Any, **fields: Any) -> Stage:
    return Stage.model_validate(
        {"layer": 2, "operator": "prune", "keep": keep, "scorer": {"name": "uniform"}, **fields}
    )


def content_with(keep: Any, version: int) -> dict[str, Any]:
    content = policy_content(PolicySet(model=MODEL, default=Policy(stages=(prune(0.5),))))
    content["default"]["stages"][0]["keep"] = keep
    return {**content, "schema_version": version}


def printed_by_another_tool(value: Any) -> Any:
    """Return JSON as a tool prints it that knows one kind of number: 1.0 becomes 1."""
    if isinstance(value, dict):
        return {name: printed_by_another_tool(part) for name, part in value.items()}
    if isinstance(value, list):
        return [printed_by_another_tool(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.parametrize("name", FILES)
def test_files_of_version_1_load_to_the_policies_that_they_held(name: str, tmp_path: Path) -> None:
    content, found = json.loads((GOLDEN / name).read_text()), load_policy(GOLDEN / name)
    assert content["schema_version"] == 1
    policies = {"": found.default, **{task: each.policy for task, each in found.tasks.items()}}
    assert {task: policy.digest() for task, policy in policies.items()} == DIGESTS[name]
    stages = {task: each["policy"]["stages"] for task, each in content["tasks"].items()}
    for task, policy in found.tasks.items():
        for stage, written in zip(policy.policy.stages, stages[task], strict=True):
            assert (type(stage.keep), stage.keep) == (type(written["keep"]), written["keep"])
            assert dict(stage.options) == written["options"]
    assert load_policy(save_policy(found, tmp_path / "again.json")) == found


def test_a_file_that_version_1_says_in_one_way_is_written_as_it_was(tmp_path: Path) -> None:
    path = save_policy(load_policy(GOLDEN / "search.json"), tmp_path / "again.json")
    assert json.loads(path.read_text()) == json.loads((GOLDEN / "search.json").read_text())


def test_measurements_of_version_1_are_of_the_policies_that_they_were_of() -> None:
    rows = [Measurement.model_validate_json(line) for line in (GOLDEN / "measurements.jsonl").read_text().splitlines()]
    assert [row.policy.digest() for row in rows] == DIGESTS["measurements.jsonl"]


@pytest.mark.parametrize("keep,form", [(1, {"count": 1}), (1.0, {"share": 1.0})])
def test_what_could_be_read_two_ways_is_written_as_version_2(keep: Any, form: dict[str, Any]) -> None:
    content = policy_content(PolicySet(model=MODEL, default=Policy(stages=(prune(keep), prune("knee", layer=3)))))
    assert content["schema_version"] == 2
    assert [stage["keep"] for stage in content["default"]["stages"]] == [form, {"budget": "knee"}]
    assert json.loads(prune(keep).model_dump_json())["keep"] == form
    assert json.loads(prune(0.5).model_dump_json())["keep"] == 0.5


def test_one_token_and_every_token_differ_everywhere() -> None:
    one, all_of_them = (Policy(stages=(prune(keep),)) for keep in (1, 1.0))
    assert one != all_of_them
    assert len({one, all_of_them}) == len({one.digest(), all_of_them.digest()}) == 2
    assert one.label() != all_of_them.label()


def test_options_that_python_takes_for_equal_differ_and_their_order_does_not() -> None:
    found = {prune(0.5, options={"a": value}) for value in (1, 1.0, True)}
    assert len(found) == 3
    first, second = prune(0.5, options={"a": 1, "b": 2}), prune(0.5, options={"b": 2, "a": 1})
    assert first == second
    assert Policy(stages=(first,)).digest() == Policy(stages=(second,)).digest()


@given(keeps["any"], keeps["any"])
def test_labels_tell_kinds_apart(one: Any, other: Any) -> None:
    assume(type(one) is not type(other))
    assert prune(one).label() != prune(other).label()


@given(policies)
def test_a_policy_survives_json_also_of_a_tool_that_prints_1_for_1_0(policy: Policy) -> None:
    text = policy.model_dump_json()
    again = Policy.model_validate_json(text)
    assert (again, hash(again), again.digest(), again.label()) == (
        policy,
        hash(policy),
        policy.digest(),
        policy.label(),
    )
    assert Policy.model_validate(policy.model_dump()) == policy
    other = Policy.model_validate(printed_by_another_tool(json.loads(text)))
    assert [(type(stage.keep), stage.keep) for stage in other.stages] == [
        (type(stage.keep), stage.keep) for stage in policy.stages
    ]


@given(policies, policies)
def test_equal_policies_and_only_those_have_one_digest(one: Policy, other: Policy) -> None:
    assert (one == other) == (one.digest() == other.digest())
    assert one != other or hash(one) == hash(other)


@settings(max_examples=40)
@given(policy_sets)
def test_a_policy_set_survives_its_file(policies: PolicySet) -> None:
    content = policy_content(policies)
    again = parse_policy(json.loads(json.dumps(content)))
    assert again == policies
    assert hash(again) == hash(policies)
    assert policy_content(again) == content
    ambiguous = [stage for each in (policies.default, *(task.policy for task in policies.tasks.values()))
                 for stage in each.stages if stage.keep in (1, 1.0)]  # fmt: skip
    assert content["schema_version"] == (2 if ambiguous else 1)


@settings(max_examples=40)
@given(policy_sets)
def test_a_file_follows_the_shipped_schema_of_its_version(policies: PolicySet) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    content = policy_content(policies)
    jsonschema.validate(content, json.loads(SCHEMA_PATHS[content["schema_version"]].read_text()))


@pytest.mark.parametrize(
    "keep,version,message",
    [
        ({"share": 0.5}, 1, "in schema_version 1 it must be a number or a name"),
        (0.5, 2, "in schema_version 2 it must be one of"),
        (1, 2, "in schema_version 2 it must be one of"),
        ("knee", 2, "in schema_version 2 it must be one of"),
        ({"share": 0.5, "count": 1}, 2, "must have one of share, count, budget and nothing else"),
        ({"shares": 0.5}, 2, "must have one of share, count, budget and nothing else"),
        ({}, 2, "must have one of"),
        ({"count": 1.5}, 2, "count: Input should be a valid integer"),
        ({"count": True}, 2, "count: Input should be a valid integer"),
        ({"share": "0.5"}, 2, "share: Input should be a valid number"),
        ({"budget": 1}, 2, "budget: Input should be a valid string"),
        ({"share": 0}, 2, "share: Input should be greater than 0"),
        ({"share": 0.0}, 2, "greater than 0"),
        ({"share": 1.5}, 2, "less than or equal to 1"),
        ({"count": 10**40}, 2, "less than or equal to 2147483647"),
        ({"share": 10**400}, 2, "share: Input"),
    ],
)
def test_a_keep_that_is_not_of_its_version_is_refused(keep: Any, version: int, message: str) -> None:
    with pytest.raises(PolicyFileError, match=message):
        parse_policy(content_with(keep, version))


@pytest.mark.parametrize("form,keep", [({"share": 1}, 1.0), ({"count": 1.0}, 1), ({"budget": "knee"}, "knee")])
def test_version_2_reads_a_number_by_its_name(form: dict[str, Any], keep: Any) -> None:
    [stage] = parse_policy(content_with(form, 2)).default.stages
    assert (type(stage.keep), stage.keep) == (type(keep), keep)


def test_the_shipped_schema_of_the_last_version_is_the_models_own() -> None:
    assert json.loads(SCHEMA_PATHS[2].read_text()) == policy_schema()


def test_a_later_field_with_a_default_leaves_digests_and_files_alone() -> None:
    """At the default of a later field the form of version 1 is written, else that of version 2."""

    class Later(Stage):
        gate: str | None = None

    plain, gated = Later(layer=2, operator="withdraw"), Later(layer=2, operator="withdraw", gate="dyvte")
    assert (plain.schema_version, gated.schema_version) == (1, 2)
    assert plain.model_dump_json() == Stage(layer=2, operator="withdraw").model_dump_json()
    for context in (None, {"schema_version": 1}, {"schema_version": 2}):
        assert json.loads(gated.model_dump_json(context=context))["gate"] == "dyvte"
        assert Later.model_validate_json(gated.model_dump_json(context=context)) == gated
    with pytest.raises(ValueError, match="gate needs schema_version 2"):
        Later.model_validate({"layer": 2, "operator": "withdraw", "gate": None}, context={"schema_version": 1})


def test_a_share_keeps_all_its_digits() -> None:
    policy = Policy(stages=(prune(math.nextafter(0.5, 1)),))
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert TaskPolicy(policy=policy).policy.digest() != Policy(stages=(prune(0.5),)).digest()


class One(IntEnum):
    TOKEN = 1


@pytest.mark.parametrize("keep", [np.int64(1), np.int32(1), One.TOKEN])
def test_one_token_is_one_token_in_every_kind_of_number(keep: Any) -> None:
    stage = Stage(layer=2, operator="prune", keep=keep, options={"a": np.int64(2), "b": np.bool_(True)})
    assert (type(stage.keep), stage.keep) == (int, 1)
    assert {name: type(value) for name, value in stage.options.items()} == {"a": int, "b": bool}
    assert type(Stage(layer=2, operator="prune", keep=np.float64(1)).keep) is float
    assert Policy.withdraw(np.int64(3)) == Policy.withdraw(3)


@pytest.mark.parametrize("layer", [True, "2", 2.5])
def test_a_layer_is_a_number(layer: Any) -> None:
    with pytest.raises(ValidationError):
        Stage(layer=layer, operator="withdraw")
