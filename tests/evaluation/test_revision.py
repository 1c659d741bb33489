"""A Hub model is loaded from one commit, which is recorded and taken again; the cache stands for the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from rich.console import Console

from vtw_search.config import load_config
from vtw_search.errors import ConfigError, ModelError
from vtw_search.evaluation.model import REFERENCE_MODEL, load_model
from vtw_search.evaluation.revision import resolve_revision
from vtw_search.preparation import Prepared, _save_config, _saved_commit, load, owned, prepare
from vtw_search.settings import SearchConfig

FIRST, SECOND = "a" * 40, "b" * 40
NAME = "somebody/tiny"


class Hub:
    """A cache without network behind it: `main` is whatever commit was seen last."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / f"models--{NAME.replace('/', '--')}"
        for commit in (FIRST, SECOND):
            snapshot = self.repository / "snapshots" / commit
            snapshot.mkdir(parents=True)
            for file in REFERENCE_MODEL.iterdir():
                (snapshot / file.name).symlink_to(file)
        (self.repository / "refs").mkdir()
        self.move(FIRST)

    def move(self, commit: str, name: str = "main") -> None:
        """Let a branch be at another commit."""
        (self.repository / "refs" / name).write_text(commit)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return Hub(tmp_path / "hub")


def config(*overrides: str) -> Any:
    return load_config(f"model.path={NAME}", "search=pinned", "model.device=cpu", *overrides)


def test_a_revision_is_resolved_to_a_commit(hub: Hub) -> None:
    assert resolve_revision(NAME, None) == FIRST
    hub.move(SECOND)
    assert resolve_revision(NAME, None) == SECOND
    hub.move(FIRST, "v1")
    assert resolve_revision(NAME, "v1") == FIRST
    assert resolve_revision(NAME, FIRST) == FIRST
    assert resolve_revision(str(REFERENCE_MODEL), None) is None


@pytest.mark.parametrize("name,revision", [("somebody/else", None), (NAME, "no-such-branch"), ("a/b/c", None)])
def test_what_cannot_be_resolved_is_a_model_error(hub: Hub, name: str, revision: str | None) -> None:
    with pytest.raises(ModelError, match="must be loadable"):
        load_model(name, revision=revision, device="cpu")


def test_a_hub_model_knows_its_commit(hub: Hub) -> None:
    loaded = load_model(NAME, device="cpu")
    assert loaded.facts.fingerprint.revision == loaded.identity["revision"] == FIRST
    hub.move(SECOND)
    assert load_model(NAME, device="cpu").facts.fingerprint.revision == SECOND
    assert load_model(NAME, revision=FIRST, device="cpu").facts.fingerprint.revision == FIRST


def prepared(asked: SearchConfig) -> Prepared:
    console = Console(quiet=True)
    with owned(asked, console) as owner:
        return prepare(asked, console, owner)


def test_a_search_goes_on_with_the_commit_that_it_began_with(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "pinned"
    asked = config("task=digits_read", f"runs={tmp_path / 'runs'}", "tracking=none", "samples.holdout=20")
    first = prepared(asked)
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["revision"] == FIRST
    hub.move(SECOND)
    again = prepared(asked)
    assert again.loaded.identity == first.loaded.identity
    reloaded = load(asked, "bfloat16", revision=again.loaded.facts.fingerprint.revision)
    assert reloaded.facts.fingerprint.revision == FIRST
    with pytest.raises(ConfigError, match="exists with another model"):
        prepared(config("task=digits_read", f"runs={tmp_path / 'runs'}", "tracking=none", "samples.holdout=20",
                        "model.revision=main"))  # fmt: skip


def test_a_search_of_before_commits_were_saved_goes_on(tmp_path: Path) -> None:
    _save_config(config(), tmp_path)
    assert _saved_commit(config(), tmp_path) is None
    _save_config(config(), tmp_path, FIRST)
    assert _saved_commit(config(), tmp_path) == FIRST
    assert _saved_commit(load_config("search=pinned"), tmp_path) is None
    with pytest.raises(ConfigError, match="exists with another model"):
        _save_config(config(), tmp_path, SECOND)
