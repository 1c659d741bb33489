"""Any bytes and any JSON give a policy or a PolicyFileError, soon and in one line."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.policies.strategies import MODEL, json_values, policy_sets
from vtw_search import Policy, PolicySet, load_policy, save_policy
from vtw_search.errors import PolicyFileError
from vtw_search.policies import TaskPolicy, parse_policy, policy_content, read_certificate
from vtw_search.policies.json_file import MAX_BYTES

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
GOLDEN = Path(__file__).parent / "golden"
VALID = [json.loads((GOLDEN / name).read_text()) for name in ("by_hand.json", "search.json")]
# What a parser may stumble over, in place of any part of a file.
odd = st.sampled_from([
    float("nan"), float("inf"), -0.0, 1e308, 5e-324, 10**400, -(10**30), True, None, "", "\ud800", "\0", [], {}, [[]],
    {"share": 1}, {"": {}}, "../../x", {"__class__": 1},
])  # fmt: skip


def read(path: Path, content: bytes) -> PolicySet | None:
    """Return what a file of `content` holds, None if it is refused; anything else fails the test."""
    path.write_bytes(content)
    try:
        found = load_policy(path)
    except PolicyFileError as error:
        text = str(error)
    else:
        assert load_policy(save_policy(found, path)) == found
        return found
    assert len(text) < 2000
    assert "\n" not in text
    return None


def places(content: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every part of a JSON value."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [so_far] + [way for name, part in parts for way in places(part, (*so_far, name))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """Return a valid file with up to three parts replaced, removed, renamed or doubled."""
    content = copy.deepcopy(draw(st.one_of(st.sampled_from(VALID), policy_sets.map(policy_content))))
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(places(content)))
        if not way:
            continue
        holder = content
        for name in way[:-1]:
            holder = holder[name]
        change = draw(st.sampled_from(["replace", "remove", "rename"]))
        if change == "replace" or isinstance(holder, list):
            holder[way[-1]] = draw(odd | json_values)
        else:
            part = holder.pop(way[-1])
            if change == "rename":
                holder[draw(st.text(max_size=5))] = part
    return content


@same_folder
@given(content=st.binary() | st.text().map(str.encode))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    read(tmp_path / "policy.json", content)


@same_folder
@given(content=json_values)
def test_any_json(tmp_path: Path, content: Any) -> None:
    assert read(tmp_path / "policy.json", json.dumps(content).encode()) is None


@same_folder
@given(content=mutated())
def test_any_mutation_of_a_valid_file(tmp_path: Path, content: Any) -> None:
    read(tmp_path / "policy.json", json.dumps(content).encode())
    with contextlib.suppress(PolicyFileError):
        parse_policy(content)


@same_folder
@given(data=st.data(), change=st.sampled_from([b"", b"{", b"[", b'"', b"\\", b"1", b"\x00", b"\xff", b"NaN"]))
def test_any_edit_of_the_text(tmp_path: Path, data: st.DataObject, change: bytes) -> None:
    text = (GOLDEN / "by_hand.json").read_bytes()
    start = data.draw(st.integers(0, len(text)))
    read(tmp_path / "policy.json", text[:start] + change + text[start + data.draw(st.integers(0, 3)) :])


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize("depth", [17, 90, 20_000])
@pytest.mark.parametrize("where", ["the file", "provenance", "measured", "keep"])
def test_nested_files(tmp_path: Path, where: str, depth: int) -> None:
    deep = '{"a":[' * depth + "1" + "]}" * depth
    task = TaskPolicy(policy=Policy.withdraw(3), measured={"a": {"b": "DEEP"}})
    content = policy_content(PolicySet(model=MODEL, tasks={"t": task}, provenance={"a": "DEEP"}))
    content["default"] = {"stages": [{"layer": 2, "operator": "prune", "keep": "DEEP"}]}
    texts = {
        "the file": deep,
        "provenance": json.dumps({**content, "default": {}, "tasks": {}}),
        "measured": json.dumps({**content, "default": {}, "provenance": {}}),
        "keep": json.dumps({**content, "provenance": {}, "tasks": {}}),
    }
    assert read(tmp_path / "policy.json", texts[where].replace('"DEEP"', deep).encode()) is None


def test_what_is_nested_a_little_is_read(tmp_path: Path) -> None:
    content = policy_content(PolicySet(model=MODEL, provenance=nested(10)))
    assert read(tmp_path / "policy.json", json.dumps(content).encode()) is not None


@pytest.mark.parametrize("value", [nested(17), {"a": object()}, {"a": {1, 2}}])
def test_what_no_file_could_hold_is_refused_in_python(value: Any) -> None:
    with pytest.raises(ValueError, match=r"nested 32 deep at most|must be a JSON value"):
        PolicySet(model=MODEL, provenance=value)


def test_what_json_cannot_say_is_what_the_file_says(tmp_path: Path) -> None:
    policies = PolicySet(model=MODEL, provenance={"number": float("inf"), "file": "caf\udce9.json", "a": {1: (2,)}})
    assert load_policy(save_policy(policies, tmp_path / "policy.json")) == policies
    assert policies.provenance == {"number": None, "file": "caf\\udce9.json", "a": {"1": (2,)}}


@pytest.mark.parametrize("twice", ['"schema_version": 1', '"default": {"stages": []}'])
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, twice: str) -> None:
    text = json.dumps(policy_content(PolicySet(model=MODEL)))
    (tmp_path / "policy.json").write_text("{" + twice + ", " + text[1:])
    with pytest.raises(PolicyFileError, match="stands in one object twice"):
        load_policy(tmp_path / "policy.json")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    text = json.dumps(policy_content(PolicySet(model=MODEL)))
    assert read(tmp_path / "policy.json", b"\xef\xbb\xbf" + text.encode()) == PolicySet(model=MODEL)


@pytest.mark.parametrize("path", ["/dev/zero", "sparse"])
def test_endless_files_end_soon(tmp_path: Path, path: str) -> None:
    place = tmp_path / path
    if not place.exists():
        with place.open("wb") as stream:
            stream.truncate(MAX_BYTES + 1)
    assert stat.S_ISCHR(place.stat().st_mode) or place.stat().st_size > MAX_BYTES
    for load in (load_policy, read_certificate):
        with pytest.raises(PolicyFileError, match=f"at most {MAX_BYTES} bytes"):
            load(place)


@pytest.mark.parametrize("name", ["", "no/such/file", "a\0b", "x" * 5000, "\udc80"])
def test_paths_that_are_no_file(tmp_path: Path, name: str) -> None:
    for load in (load_policy, read_certificate):
        with pytest.raises(PolicyFileError, match="must be readable"):
            load(os.path.join(tmp_path, name))  # noqa: PTH118  Path would refuse some of them itself


@pytest.mark.parametrize(
    "name", ["../../x", "..", "a/b", "a\\b", "", ".hidden", "-x", "a b", "é", "a\n", "x" * 101, "a\0"]
)
def test_a_task_is_a_name(name: str) -> None:
    content = policy_content(PolicySet(model=MODEL, tasks={"t": TaskPolicy(policy=Policy())}))
    content["tasks"] = {name: content["tasks"]["t"]}
    with pytest.raises(PolicyFileError, match=r"tasks.*letters, digits.*choose another name"):
        parse_policy(content)
    with pytest.raises(ValueError, match="choose another name"):
        PolicySet(model=MODEL, tasks={name: TaskPolicy(policy=Policy())})
