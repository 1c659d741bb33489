"""The command on bad input: one line with rule, value and remedy, exit status 2, and nothing written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from rich.console import Console

from vtw_search.commands.search import main
from vtw_search.config import load_config
from vtw_search.errors import ConfigError
from vtw_search.evaluation.model import REFERENCE_MODEL
from vtw_search.evaluation.splits import SPLITS, Splits
from vtw_search.evaluation.tasks import Sample
from vtw_search.preparation import _save_config, _say_what_is_certifiable


def run(capsys: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> str:
    """Run the command in `folder`; it must fail with status 2 and one line, which is returned."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["vtw-search", *arguments])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.err.startswith("vtw-search: ")
    assert len(captured.err.strip().splitlines()) == 1
    assert not (folder / "runs").exists()
    return captured.err


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["task=easy_vqa_colour"], "unknown task 'easy_vqa_colour'; did you mean 'easy_vqa_color'"),
        (["task=[digits_read,easy_vqa_colour]"], "unknown task 'easy_vqa_colour'; did you mean 'easy_vqa_color'"),
        (["model=refrence"], "unknown model 'refrence'; did you mean 'reference'"),
        (["limits=vtw"], "did you mean 'vtw_paper'"),
        (["limits.kl_nat=0.1"], "unknown option 'limits.kl_nat'; did you mean limits.kl_nats"),
        (["tsak=digits_read"], "unknown option 'tsak'"),
        (["task=jsonl", "task.path=a", "task.max_new_token=8"], "did you mean task.max_new_tokens"),
        (["limits.at_most.macs_ratio=0.5"], "with a plus.*write \\+limits.at_most.macs_ratio=0.5"),
        (["limits.slices.digits.kl_nats=1"], "write \\+limits.slices.digits.kl_nats=1"),
        (["limits.kl_nats=-0.1"], "limits.kl_nats: input should be greater than or equal to 0 or 'task', got -0.1$"),
        (["--config-dir", "nowhere"], "a folder of settings must exist, got '.*nowhere'"),
        (["limits.accuracy_drop=nan"], "limits.accuracy_drop.*finite"),
        (["limits.kl_nats=-1", "batch_size=0", "seed=-1"], "seed.*batch_size.*limits.kl_nats"),
        (["+limits.per_task.digits_raed.accuracy_drop=0.1"], "did you mean 'digits_read'"),
        (["task=[digits_read"], "quote brackets"),
        (["task=jsonl"], "task.path needs a value"),
        (["task=jsonl", "task.path=none.jsonl"], "must be readable, got 'none.jsonl'"),
        (["task=digits_read", "limits.accuracy_drop=0.001"], "needs 2995; 300 images certify 0.00994 at best"),
        (
            ["task=digits_read", "limits.kl_cap_nats=0.05", "+limits.per_task.digits_read.kl_nats=0.1"],
            "limits.kl_cap_nats must be above.*of digits_read.*0.05.*0.1",
        ),
        (["task=digits_read", "samples.confirmation=0"], "limits.confidence=null"),
        (["task=digits_read", "+limits.slices.digit.accuracy_drop=0.1"], "unknown slice 'digit'.*'digits'"),
        (["task=digits_read", "+limits.at_most.latency=1"], "unknown cost.*latency_ms"),
        (["task=digits_read", "+limits.at_most.latency_problems=1"], "unknown cost.*'latency_problems'"),
        (["task=digits_read", "profile=macs", "limits=first_token_200ms"], "needs timed prefills.*profile=time"),
        (["task=digits_read", "limits.prefer=[speed]"], "unknown column to choose by 'speed'"),
        (["limits.confidence=1"], "limits.confidence.*less than 1"),
        (["search=../up"], "search: a name of files is letters, digits"),
        (["task=digits_read", "space=fastv", "+space.recipes.fastv.keep=[1.5]"], "recipe 'fastv'.*keep.*1.5"),
        (["task=digits_read", "space=fastv", "+space.recipes.fastv.layer=[0]"], "layer must be 0 before the decoder"),
        (["task=digits_read", "model.device=cuda:99"], "a device must be usable, got 'cuda:99'"),
        (["task=digits_read", "model.path=none"], "a model must be loadable, got 'none'"),
        (["storage=postgres"], "storage.url needs a value"),
        (["storage=postgres", "storage.url=mysql://me:secret@host/db"], "must be that of a PostgreSQL database"),
        (["storage.url=postgresql://me@host/db"], "is for storage=postgres"),
        (["storage.lease_s=0"], "storage.lease_s.*greater than 0"),
        (["worker=-1"], "worker.*greater than or equal to 0"),
        (["timeout_s=0"], "timeout_s.*greater than 0"),
        (["-m", "limits.kl_nats=0.1,-1"], "greater than or equal to 0"),
    ],
)
def test_bad_options(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    import re

    assert re.search(message, run(capsys, monkeypatch, tmp_path, *arguments))


def test_a_layer_out_of_range(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = run(capsys, monkeypatch, tmp_path, "task=digits_read", "space.first_layer=13")
    assert "1..11" in line


def test_a_model_folder_without_weights(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(REFERENCE_MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    assert "safetensors" in run(capsys, monkeypatch, tmp_path, "task=digits_read", "model.path=model")


def _rows(folder: Path, change: Any) -> None:
    for number in range(40):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
    rows = [
        {"id": str(number), "images": [f"{number}.png"], "prompt": "what?", "answers": ["x"]} for number in range(40)
    ]
    change(rows)
    (folder / "my.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda rows: rows[2].pop("answers"), "line 3, field answers"),
        (lambda rows: [row.update(images=[]) for row in rows], "must have an image"),
        (lambda rows: [row.update(images=["b.png"]) for row in rows], "b.png"),
        (lambda rows: rows.__delitem__(slice(1, None)), "no image is left"),
    ],
)
def test_bad_task_files(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: Any, message: str
) -> None:
    _rows(tmp_path, change)
    assert message in run(capsys, monkeypatch, tmp_path, "task=jsonl", "task.path=my.jsonl")


@pytest.mark.parametrize(
    "prompt,problem",
    [
        ("what <image 1>?", "the processor cannot put images into the middle of a prompt"),
        ("<|image_pad|> what?", "a prompt must not hold the placeholder <|image_pad|>"),
    ],
)
def test_a_prompt_with_a_placeholder_is_refused_before_anything_runs(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prompt: str, problem: str
) -> None:
    _rows(tmp_path, lambda rows: rows[7].update(prompt=prompt))
    line = run(capsys, monkeypatch, tmp_path, "task=jsonl", "task.path=my.jsonl", "limits.confidence=null")
    assert f"sample '7': {problem}" in line


def test_a_name_cannot_be_continued_with_another_seed(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    _save_config(load_config("search=a"), tmp_path / "runs" / "a")
    _save_config(load_config("search=a", "limits.kl_nats=0.5"), tmp_path / "runs" / "a")
    with pytest.raises(ConfigError, match=r"exists with another seed.*choose another search"):
        _save_config(load_config("search=a", "seed=3"), tmp_path / "runs" / "a")


def test_a_missing_extra_is_said_in_one_line(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vtw_search.commands.search._NEEDED", ("hydra", "no_such_package"))
    line = run(capsys, monkeypatch, tmp_path)
    assert line.strip() == "vtw-search: vtw-search needs no_such_package; pip install 'vtw-search[search]'"


def test_a_password_is_in_no_message_and_not_in_the_saved_configuration(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = run(capsys, monkeypatch, tmp_path, "storage=postgres", "storage.url=mysql://me:secret@host/db")
    assert "secret" not in line
    config = load_config("search=a", "storage=postgres", "storage.url=postgresql://me:secret@host/db")
    _save_config(config, tmp_path / "a")
    assert "secret" not in (tmp_path / "a" / "config.yaml").read_text()


@pytest.mark.parametrize("split", ["calibration", "selection", "holdout"])
def test_a_slice_that_could_not_be_tested_is_refused_before_anything_runs(split: str) -> None:
    config = load_config(
        "task=digits_read", "limits.kl_nats=null", "limits.accuracy_drop=0.1", "+limits.slices.digits.accuracy_drop=0.2"
    )
    samples = [Sample(str(n), (), "?", ("a",), "exact_match", str(n), {"digits": "2"}) for n in range(60)]
    splits = {name: tuple(samples) for name in SPLITS}
    _say_what_is_certifiable(config, {"digits_read": Splits(splits)}, Console(quiet=True))
    splits[split] = (*samples, replace(samples[0], id="rare", slices={"digits": "9"}))
    with pytest.raises(ConfigError, match=r"digits_read: accuracy_drop\[digits=9\] <= 0.2 needs \d+; 0 images"):
        _say_what_is_certifiable(config, {"digits_read": Splits(splits)}, Console(quiet=True))


@pytest.mark.parametrize(
    "split,limit,lacks",
    [("selection", "kl_nats", "calibration"), ("calibration", "accuracy_drop", "selection")],
)
def test_a_slice_that_could_not_be_judged_is_refused_before_anything_runs(split: str, limit: str, lacks: str) -> None:
    config = load_config("task=digits_read", "limits.confidence=null", f"+limits.slices.digits.{limit}=0.2")
    samples = tuple(Sample(str(n), (), "?", ("a",), "exact_match", str(n), {"digits": "2"}) for n in range(5))
    splits = dict.fromkeys(SPLITS, samples)
    _say_what_is_certifiable(config, {"digits_read": Splits(splits)}, Console(quiet=True))
    splits[split] = (*samples, replace(samples[0], id="rare", slices={"digits": "9"}))
    with pytest.raises(ConfigError, match=rf"slice of digits_read.*{limit}\[digits=9\] has none in {lacks}"):
        _say_what_is_certifiable(config, {"digits_read": Splits(splits)}, Console(quiet=True))


def test_what_can_be_certified_is_said_with_the_names_of_slices() -> None:
    config = load_config(
        "task=digits_read",
        "limits.kl_nats=null",
        "limits.accuracy_drop=0.1",
        "+limits.slices.digits.accuracy_drop=0.2",
        "+limits.slices.downsampling_fails.kl_nats=0.1",
    )
    samples = tuple(Sample(str(n), (), "?", ("a",), "exact_match", str(n), {"digits": "2"}) for n in range(60))
    console = Console(record=True, width=200)
    _say_what_is_certifiable(config, {"digits_read": Splits(dict.fromkeys(SPLITS, samples))}, console)
    text = console.export_text()
    assert "accuracy_drop[digits=2] down to" in text
    # What is not measured yet is said when it is.
    assert "downsampling_fails" not in text


@pytest.mark.parametrize("module", ["vtw_search", pytest.param("vtw_search.commands.profile", marks=pytest.mark.slow)])
def test_a_reader_who_has_had_enough_is_no_error(module: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert not process.stderr.read()
    assert process.wait() == 128 + 13
