"""`vtw-profile`: a profile of the embedded model, one without weights, and bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from experiments.model_coverage.families import find
from profilers.protocol import ProtocolSettings
from vtw_search.adapters import find_adapter
from vtw_search.commands.profile import main
from vtw_search.errors import ConfigError
from vtw_search.evaluation.model import load_model
from vtw_search.policies import Policy, PolicySet, TaskPolicy, save_policy
from vtw_search.profile_config import load_profile_config
from vtw_search.profile_driver import _timing
from vtw_search.profiling.architectures import build_on_meta, load_architecture
from vtw_search.profiling.regimes import RegimeRunner
from vtw_search.profiling.rows import RegimeRow
from vtw_search.runtime import make_certificate

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
    assert "withdraw@6 on reference" in printed
    assert "milliseconds: p50 / p90 / p99" in printed
    assert "6 calls each: below 100, p99 says no more than the slowest call" in printed
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
        ([], "vtw-profile: give either policy=<file> or recipe=<name>, such as recipe=vtw recipe.layer=16\n"),
        ([*VTW, "policy=p.json"], "give either policy=<file> or recipe=<name>"),
        (["recipe=fastv", "+recipe.layr=3"], "unknown parameter 'layr' of recipe 'fastv'; did you mean 'layer'"),
        (
            ["recipe=fastv", "recipe.keep=0.5"],
            "added to recipe with a plus, got 'recipe.keep=0.5'; write +",
        ),
        (["recipe=fastv", "+recipe.keep=1.5"], "the parameters of recipe 'fastv' must make a policy"),
        (["recipe=vtv", "recipe.layer=3"], "unknown recipe 'vtv'; did you mean 'vtw'"),
        (["recipe=vtw", "recipe.layer=0"], "a withdrawal layer K must be an integer of at least 1, got 0"),
        (["recipe=vtw", "recipe.layer=99"], "must lie in 1..12"),
        ([*VTW, "profile.batch=[]"], "profile.batch: tuple should have at least 1 item"),
        (
            [*VTW, "profile.batch=[-1]"],
            "vtw-profile: profile.batch.0: input should be greater than or equal to 1, got -1",
        ),
        ([*VTW, "profile.batches=[1]"], "unknown option 'profile.batches'; did you mean profile.batch"),
        ([*VTW, "weights=random"], "unknown architecture 'reference'; "),
        (["policy=nowhere.json"], "nowhere.json"),
        (["policy=p.json", "task=digits_read"], "unknown option 'task'; did you mean policy_task"),
        ([*VTW, "policy_task=digits_read"], "policy_task chooses from a policy file, and a recipe has no tasks"),
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
    first, again = (load_profile_config(*VTW, *more).profile_name for more in ((), ("profile.max_seconds=3",)))
    assert first == again == load_profile_config(*VTW, "tracking=none").profile_name
    assert _timing(load_profile_config(*VTW, "profile.max_seconds=3")) == ProtocolSettings(5, 1.0, max_seconds=3.0)
    assert load_profile_config(*VTW, "profile.batch=[2]").profile_name != first
    with pytest.raises(ConfigError, match="name"):
        load_profile_config(*VTW, "name=a/b")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["recipe=vtc_cls"], "a prefill is timed without running the vision tower, so that no scorer can read it, got "
         "'select:0.222:cls_attention-first=-2:recount'; count it with profile=macs, or search it"),
        (["recipe=fopru"], "count it with profile=macs, or search it: a search counts and times it on real samples"),
        (["recipe=image_text_interaction"], "got 'select:knee:cls_similarity:recount'; search it: a search counts"),
        (["recipe=image_text_interaction", "profile=macs"], "counts do not depend on scores, got 'select:knee"),
    ],
)  # fmt: skip
def test_policies_that_random_prompts_cannot_show_are_refused(
    arguments: list[str], message: str, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert message in refused(capsys, monkeypatch, tmp_path, *arguments)


def test_what_reads_the_tower_can_be_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile(monkeypatch, tmp_path, "recipe=vtc_cls", "profile=macs", "tracking=none", "name=counted")
    (row, _) = json.loads((tmp_path / "runs/counted/profile.json").read_text())["regimes"]
    assert row["candidate"]["prefill"]["scorer"] > 0


def architecture(folder: Path, name: str) -> str:
    """Write a tiny architecture of a family, and return how the command is told of it."""
    find(name).config().to_json_file(folder / "config.json")
    return f"model.path={folder / 'config.json'}"


@pytest.mark.slow
def test_an_interrupted_profile_keeps_its_rows(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = RegimeRunner._measured

    def measured(self: RegimeRunner, row: RegimeRow) -> RegimeRow:
        if row.regime.batch == 2:
            raise KeyboardInterrupt
        return whole(self, row)

    monkeypatch.setattr(RegimeRunner, "_measured", measured)
    with pytest.raises(SystemExit) as stop:
        profile(monkeypatch, tmp_path, *VTW, *QUICK, "profile.batch=[1,2]", "profile.output_tokens=[1]", "name=first")
    assert stop.value.code == 130
    content = json.loads((tmp_path / "runs/first/profile.json").read_text())
    assert [row["regime"]["batch"] for row in content["regimes"]] == [1]
    assert content["complete"] is False
    assert (tmp_path / "runs/first/config.yaml").exists()
    monkeypatch.setattr(RegimeRunner, "_measured", whole)
    profile(monkeypatch, tmp_path, *VTW, *QUICK, "profile.batch=[1]", "profile.output_tokens=[1]", "name=first")
    assert json.loads((tmp_path / "runs/first/profile.json").read_text())["complete"] is True


def test_nothing_of_an_earlier_profile_is_left_beside_a_new_one(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = (*VTW, "profile=macs", "tracking=none", "name=again")
    profile(monkeypatch, tmp_path, *arguments)

    def stopped(self: RegimeRunner, regime: Any) -> RegimeRow:
        raise KeyboardInterrupt

    monkeypatch.setattr(RegimeRunner, "_counted", stopped)
    with pytest.raises(SystemExit):
        profile(monkeypatch, tmp_path, *arguments)
    content = json.loads((tmp_path / "runs/again/profile.json").read_text())
    assert (content["regimes"], content["complete"]) == ([], False)
    assert not (tmp_path / "runs/again/profile.png").exists()


def test_a_family_without_certificate_is_timed_and_it_is_said(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = architecture(tmp_path, "aya_vision")
    profile(
        monkeypatch, tmp_path, "recipe=vtw", "recipe.layer=3", model, "weights=random", *QUICK, "tracking=none",
        "profile.output_tokens=[1]", "name=generic",
    )  # fmt: skip
    content = json.loads((tmp_path / "runs/generic/profile.json").read_text())
    assert [row["status"] for row in content["regimes"]] == ["measured"]
    assert content["unchecked"].startswith("whether removing tokens is right on this model was not checked")
    assert "was not checked" in " ".join(capsys.readouterr().out.split())


def test_the_certificate_of_a_policy_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = architecture(tmp_path, "aya_vision")
    bare = build_on_meta(load_architecture(str(tmp_path)))
    facts = find_adapter(bare).facts(bare)
    certificate = make_certificate(bare, facts.possible_layers, {"removal": 0.0}, None)
    policies = PolicySet(model=facts.fingerprint, default=Policy.withdraw(3), certificate=certificate)
    save_policy(policies, tmp_path / "policy.json")
    profile(
        monkeypatch, tmp_path, "policy=policy.json", model, "weights=random", "profile=macs", "tracking=none",
        "profile.visual_tokens=[64]", "name=checked",
    )  # fmt: skip
    assert json.loads((tmp_path / "runs/checked/profile.json").read_text())["unchecked"] is None


def visual_tokens(folder: Path) -> list[int]:
    content = json.loads((folder / "runs/of-task/profile.json").read_text())
    return sorted({row["regime"]["visual_tokens"] for row in content["regimes"]})


def test_the_policy_of_a_task_is_profiled(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = find_adapter(model := load_model("reference", device="cpu").model).facts(model)
    chosen = TaskPolicy(policy=Policy.withdraw(4))
    policies = PolicySet(model=facts.fingerprint, default=Policy(), tasks={"digits_read": chosen})
    save_policy(policies, tmp_path / "policy.json")
    arguments = ("policy=policy.json", "profile=macs", "tracking=none", "name=of-task")
    profile(monkeypatch, tmp_path, *arguments, "policy_task=digits_read")
    assert "withdraw@4 on reference" in capsys.readouterr().out
    assert visual_tokens(tmp_path) == [64]
    seen = chosen.model_copy(update={"measured": {"profile": {"visual_tokens": 192}}})
    save_policy(policies.model_copy(update={"tasks": {"digits_read": seen}}), tmp_path / "policy.json")
    profile(monkeypatch, tmp_path, *arguments, "policy_task=digits_read")
    assert visual_tokens(tmp_path) == [192], "the search has seen prompts of three images"
    profile(monkeypatch, tmp_path, *arguments, "policy_task=digits_read", "profile.visual_tokens=[128]")
    assert visual_tokens(tmp_path) == [128]
    with pytest.raises(SystemExit):
        profile(monkeypatch, tmp_path, *arguments, "policy_task=digits")
    told = capsys.readouterr().err
    assert (
        "must have the task, got 'digits'; choose one of digits_read, or leave policy_task out for the default" in told
    )


def test_a_policy_of_another_model_and_keep_all_are_refused(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = find_adapter(model := load_model("reference", device="cpu").model).facts(model)
    chosen = TaskPolicy(policy=Policy.withdraw(4))
    save_policy(PolicySet(model=facts.fingerprint, tasks={"digits_read": chosen}), tmp_path / "policy.json")
    told = refused(capsys, monkeypatch, tmp_path, "policy=policy.json", "profile=macs")
    assert "tokens leave, got 'the default'; choose another with policy_task, one of digits_read" in told
    arguments = ("policy_task=digits_read", "model=llava_1_5_7b", "weights=random", "profile=macs")
    told = refused(capsys, monkeypatch, tmp_path, "policy=policy.json", *arguments)
    assert "the policy file is for reference_model" in told


def test_help_shows_every_setting(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile(monkeypatch, tmp_path, "--help")
    shown = capsys.readouterr().out
    assert all(f"\n{name}:" in shown for name in ("policy", "policy_task", "weights", "profile"))


def test_visual_tokens_must_be_given_where_an_image_says_nothing(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ("recipe=vtw", "recipe.layer=3", architecture(tmp_path, "idefics2"), "weights=random", "profile=macs")
    told = refused(capsys, monkeypatch, tmp_path, *arguments)
    assert (
        'profile.visual_tokens must be given where it is not known how many tokens an image has, got "tower: ' in told
    )
    assert "; give them, such as profile.visual_tokens=[576]" in told
    profile(monkeypatch, tmp_path, *arguments, "profile.visual_tokens=[64]", "tracking=none", "name=given")
    content = json.loads((tmp_path / "runs/given/profile.json").read_text())
    assert content["verdicts"][-1].startswith("macs, times, ceilings and verdicts leave out the vision part (tower: ")
    assert content["regimes"][0]["left_out"]
