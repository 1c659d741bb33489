"""Policies and policy files as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.policies.strategies import MODEL
from vtw_search import Policy, PolicySet, load_policy, save_policy
from vtw_search.errors import PolicyFileError, StoreError, UnknownTaskWarning
from vtw_search.facts import config_digest
from vtw_search.policies import TaskPolicy, policy_content


def test_policies_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Policy.withdraw(layer=3).stages = ()  # type: ignore[misc]


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    policies = PolicySet(model=MODEL, tasks={"t": TaskPolicy(policy=Policy.withdraw(layer=3))})
    assert load_policy(save_policy(policies, tmp_path / "deep" / "policy.json")) == policies


def test_an_unknown_task_gets_the_default_with_near_matches() -> None:
    policies = PolicySet(model=MODEL, tasks={"digits_read": TaskPolicy(policy=Policy.withdraw(layer=3))})
    assert policies.for_task("digits_read") == Policy.withdraw(layer=3)
    assert policies.for_task(None) == Policy.keep_all()
    with pytest.warns(UnknownTaskWarning, match="did you mean 'digits_read'"):
        assert policies.for_task("digit_read") == Policy.keep_all()


def _written(tmp_path: Path, change: Any) -> Path:
    content = policy_content(PolicySet(model=MODEL))
    change(content)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda content: content.update(schema_version=3), "upgrade"),
        (lambda content: content.update(schema_version=0), "schema_version 1 to 2"),
        (lambda content: content.update(schema_version="1"), "schema_version"),
        (lambda content: content.update(schema_version=True), "schema_version"),
        (lambda content: content.pop("schema_version"), "schema_version"),
        (lambda content: content.update(surprise=1), "surprise"),
        (lambda content: content.pop("model"), "model"),
        (
            lambda content: content.update(default={"stages": [{"layer": 0, "operator": "withdraw"}]}),
            "at least 1 inside",
        ),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(PolicyFileError, match=message):
        load_policy(_written(tmp_path, change))


def test_truncated_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = save_policy(PolicySet(model=MODEL), tmp_path / "policy.json")
    text = path.read_text()
    for length in range(0, len(text) - 2, 7):
        path.write_text(text[:length])
        with pytest.raises(PolicyFileError, match="complete JSON"):
            load_policy(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyFileError):
        load_policy(path)
    path.write_text("[]")
    with pytest.raises(PolicyFileError, match="object"):
        load_policy(path)
    with pytest.raises(PolicyFileError, match="readable"):
        load_policy(tmp_path / "none.json")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_policy(PolicySet(model=MODEL), tmp_path / "policy.json")
    before = path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        save_policy(PolicySet(model=MODEL, default=Policy.withdraw(layer=2)), path)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.json"]


def test_the_config_digest_sees_shapes_and_nothing_else() -> None:
    config = {"model_type": "llava", "text_config": {"num_hidden_layers": 12}, "transformers_version": "5.0"}
    digest = config_digest(config)
    assert digest == config_digest({**config, "transformers_version": "6.0", "new_default": 1})
    assert digest != config_digest({**config, "text_config": {"num_hidden_layers": 13}})
