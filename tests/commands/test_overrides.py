"""Overrides: a value that needs quotes is shown with them, `~` is a home, options come first, names have matches."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from vtw_search.commands.profile import main as profile_main
from vtw_search.commands.search import main as search_main
from vtw_search.config import load_config
from vtw_search.errors import ConfigError
from vtw_search.overrides import in_a_shell, parsed, text_setting
from vtw_search.profile_config import load_profile_config
from vtw_search.tracking import TrackingSettings

# What Hydra reads as grammar, or not at all.
NASTY = [
    "my set, v2.jsonl", "a=b.jsonl", "set (1).jsonl", "set[1].jsonl", "{a}.jsonl", "a#b", "é.jsonl", "it's", 'a"b',
    "[x]", "7", "true", "1.5", "~nobody such/x", "a;b&c!", "\\\"", "[a, (b) = {c}", "猫/x",
]  # fmt: skip


@pytest.mark.parametrize("value", NASTY)
def test_a_value_that_is_no_plain_text_is_shown_as_it_has_to_be_typed(value: str) -> None:
    shown = in_a_shell(f"task.path={value}")
    with pytest.raises(ConfigError) as error:
        load_config("task=jsonl", f"task.path={value}")
    assert shown in str(error.value)
    [typed] = shlex.split(shown)
    assert load_config("task=jsonl", typed).named_tasks["jsonl"].options == {"path": value}


def test_the_example_of_the_message_is_short() -> None:
    with pytest.raises(ConfigError) as error:
        load_config("task=jsonl", "task.path=my set, v2.jsonl")
    assert """'task.path="my set, v2.jsonl"'""" in str(error.value)


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x00")), st.sampled_from(["", "${", "\\${b}", "\\"])
)
def test_any_text_survives_as_a_setting(text: str, more: str) -> None:
    [found] = parsed([text_setting("a.b", text + more)])
    assert OmegaConf.create({"b": found.value()}).b == text + more
    [typed] = shlex.split(in_a_shell(f"a.b={text}"))
    [again] = OverridesParser.create().parse_overrides([typed])
    assert OmegaConf.create({"b": again.value()}).b == text


def fails(capsys: Any, monkeypatch: pytest.MonkeyPatch, main: Any, name: str, *arguments: str) -> str:
    """Run a command that must end with one line and status 2; returns the line."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    return str(line)


@pytest.mark.parametrize(
    "arguments,shown",
    [
        (["task=digits_read", "-m", "seed=0,1"], "write vtw-search -m task=digits_read seed=0,1"),
        (["task=digits_read", "--multirun", "seed=0,1"], "write vtw-search --multirun task=digits_read seed=0,1"),
        (["seed=0", "--config-dir", "my dir", "batch_size=5"], "vtw-search --config-dir 'my dir' seed=0 batch_size=5"),
        (["--mulitrun", "seed=0,1"], "unknown option '--mulitrun'; did you mean '--multirun'"),
        (["seed=0,1"], "search each with -m"),
        (["limits=default,vtw_paper"], "search each with -m"),
        (["--cfg", "everything"], "invalid choice: 'everything'"),
    ],
)
def test_an_option_in_the_middle_is_told_its_place(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], shown: str
) -> None:
    assert shown in fails(capsys, monkeypatch, search_main, "vtw-search", *arguments)


def test_a_profile_is_no_multirun(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    line = fails(capsys, monkeypatch, profile_main, "vtw-profile", "-m", "recipe=vtw", "recipe.layer=1,2")
    assert "no --multirun; give an axis its values in brackets" in line
    line = fails(capsys, monkeypatch, profile_main, "vtw-profile", "recipe=vtw", "--resolve", "recipe.layer=1")
    assert "write vtw-profile --resolve recipe=vtw recipe.layer=1" in line


@pytest.mark.parametrize(
    "override,message",
    [
        ("+limts.x=1", "unknown option 'limts'; did you mean limits"),
        ("++limits.kl_nat=1", "unknown option 'limits.kl_nat'; did you mean limits.kl_nats"),
        ("~limit", "unknown option 'limit'; did you mean limits"),
        ("sede=1", "did you mean seed"),
        ("tsak=digits_read", "did you mean task"),
        ("experimnet=quick", "did you mean experiment"),
        ("+tasks.two={sorce: jsonl, max_new_tokens: 8}", "'tasks.two.sorce'; did you mean tasks.two.source"),
        ("hydra.foo=1", "known: search, runs, seed"),
        ("task", "overrides look like group=option"),
        ("=1", "an override must name a setting"),
        ("model=1", "a group is given the name of an option"),
        ("task=null", "a group is given the name of an option"),
        ("search=1", """write 'search="1"'"""),
        ("model.revision=1234567", """write 'model.revision="1234567"'"""),
        ("runs=", "runs: string should have at least 1 character"),
        ("search=" + "a" * 201, "search: a name of files .* at most"),
        ("runs=a${b}", "Interpolation key 'b' not found"),
    ],
)
def test_a_wrong_override_has_a_remedy(override: str, message: str) -> None:
    import re

    with pytest.raises(ConfigError) as error:
        load_config(override)
    assert re.search(message, str(error.value))


@pytest.mark.parametrize("quoted", [False, True])
def test_a_home_is_found_in_every_path(quoted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))

    def of(key: str, path: str = "~/x") -> str:
        return text_setting(key, path) if quoted else f"{key}={path}"

    config = load_config("task=jsonl", of("task.path"), of("runs"), of("model.path"), of("tracking.uri"))
    assert (config.runs, config.model.path) == (f"{home}/x", f"{home}/x")
    assert TrackingSettings(config.tracking.uri or "").resolved_uri == f"file://{home}/x"
    profile = load_profile_config(of("policy"), of("runs"))
    assert (profile.policy, profile.runs) == (f"{home}/x", f"{home}/x")
    for found in (config, profile):
        uri = found.tracking.uri if found is profile else load_config(of("runs")).tracking.uri
        assert TrackingSettings(uri or "").database_file == home / "x/mlflow.db"
    with pytest.raises(ConfigError, match=f"got '{home}/x'"):
        load_config(config_dirs=["~/x"])


def test_the_samples_of_a_home_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtw_search.errors import TaskError
    from vtw_search.evaluation.tasks import load_pools

    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(TaskError, match=f"{tmp_path}/none.jsonl"):
        load_pools("jsonl", {"path": "~/none.jsonl"})
    with pytest.raises(TaskError, match="unknown option 'pth' of task source 'jsonl'; did you mean 'path'"):
        load_pools("jsonl", {"pth": "none.jsonl"})
    with pytest.raises(TaskError, match="option path must be a text, got 7"):
        load_pools("jsonl", {"path": 7})


def test_a_folder_of_settings_may_be_called_anything(tmp_path: Path) -> None:
    folder = tmp_path / "my, set=(1)[é]#?%2F 'x'"
    (folder / "limits").mkdir(parents=True)
    (folder / "limits" / "mine.yaml").write_text("defaults: [default]\nkl_nats: 0.5\n")
    assert load_config("limits=mine", config_dirs=[str(folder)]).limits.kl_nats == 0.5
