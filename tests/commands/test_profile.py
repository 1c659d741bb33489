"""`vtw-profile`: a profile of the embedded model, one without weights, and bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from vtw_search.commands.profile import main
from vtw_search.errors import ConfigError
from vtw_search.profile_config import load_profile_config

VTW = ("recipe=vtw", "recipe.layer=6")
QUICK = ("profile.min_seconds=0", "profile.repeats=3", "profile.visual_tokens=[64]", "profile.prompt_tokens=[8]")


def profile(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["vtw-profile", *arguments])
    GlobalHydra.instance().clear()
    main()


def refused(capsys: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        profile(monkeypatch, folder, *arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.err.startswith("vtw-profile: ")
    assert len(captured.err.strip().splitlines()) == 1
    assert not (folder / "runs").exists()
    return str(captured.err)


def test_a_profile_leaves_table_json_picture_and_run(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    profile(monkeypatch, tmp_path, *VTW, *QUICK, "profile.batch=[1,2]", "profile.output_tokens=[2]", "name=first")
    printed = capsys.readouterr().out
    assert "withdraw@6" in printed
    assert "closed form and two counters agree on" in printed
    content = json.loads((tmp_path / "runs/first/profile.json").read_text())
    assert [row["status"] for row in content["regimes"]] == ["measured", "measured"]
    assert all(any(word in text for word in ("pays off", "cannot tell")) for text in content["verdicts"][:2])
    assert content["macs"]["audit"]
    assert content["environment"]["versions"]["torch"]
    assert (tmp_path / "runs/first/profile.png").read_bytes().startswith(b"\x89PNG")
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("vtw-search").experiment_id])
    assert run.data.tags["kind"] == "profile"
    assert run.data.metrics["b1_v64_p8_o2.macs_ratio"] == content["regimes"][0]["macs_ratio"]
    assert "b2_v64_p8_o2.speedup_low" in run.data.metrics
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"profile.json", "profile.png"}


def test_a_7b_model_is_counted_without_weights(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile(
        monkeypatch, tmp_path, "recipe=vtw", "recipe.layer=16", "model=llava_1_5_7b", "weights=random", "profile=macs",
        "tracking=none", "name=seven",
    )  # fmt: skip
    (row, _) = json.loads((tmp_path / "runs/seven/profile.json").read_text())["regimes"]
    assert row["status"] == "counted"
    assert round(2 * row["reference"]["prefill"]["decoder"] / 1e12, 2) == 8.50
    assert round(2 * row["candidate"]["prefill"]["decoder"] / 1e12, 2) == 4.67
    assert (tmp_path / "runs/seven/profile.png").exists()
    assert "counted" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give either policy=<file> or recipe=<name>"),
        ([*VTW, "policy=p.json"], "give either policy=<file> or recipe=<name>"),
        (["recipe=fastv", "+recipe.layr=3"], "unknown parameter 'layr' of recipe 'fastv'; did you mean 'layer'"),
        (["recipe=vtv", "recipe.layer=3"], "unknown recipe 'vtv'; did you mean 'vtw'"),
        (["recipe=vtw", "recipe.layer=0"], "a withdrawal layer K must be an integer of at least 1, got 0"),
        (["recipe=vtw", "recipe.layer=99"], "must lie in 1..12"),
        ([*VTW, "profile.batch=[]"], "profile.batch: tuple should have at least 1 item"),
        ([*VTW, "profile.batch=[-1]"], "profile.batch.0: input should be greater than or equal to 1, got -1"),
        ([*VTW, "profile.batches=[1]"], "unknown option 'profile.batches'; did you mean profile.batch"),
        ([*VTW, "weights=random"], "unknown architecture 'reference'; "),
        (["policy=nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input_ends_with_one_line(
    arguments: list[str], message: str, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert message in refused(capsys, monkeypatch, tmp_path, *arguments)


def test_weights_that_do_not_fit_are_refused(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vtw_search.profiling.architectures.available_bytes", lambda _: 2**30)
    told = refused(capsys, monkeypatch, tmp_path, *VTW, "model=llava_1_5_7b", "weights=random")
    assert "the weights must fit the device, got '13.2 GiB'; 1.0 GiB are left" in told


def test_the_name_of_a_profile_depends_on_what_decides_it() -> None:
    first, again = (load_profile_config(*VTW, *more).profile_name for more in ((), ("tracking=none",)))
    assert first == again
    assert load_profile_config(*VTW, "profile.batch=[2]").profile_name != first
    with pytest.raises(ConfigError, match="name"):
        load_profile_config(*VTW, "name=a/b")
