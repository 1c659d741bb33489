"""Whole searches in folders of any name, started twice, and over files that were damaged."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from tests.slow.searches import SMALL, TASK, assert_no_record_twice, assert_same_rows, begin, finish, search
from vtw_search import load_policy
from vtw_search.config import load_config
from vtw_search.driver import run_search
from vtw_search.errors import StoreError
from vtw_search.evaluation.model import load_model
from vtw_search.overrides import text_setting
from vtw_search.worker_driver import run_worker

pytestmark = pytest.mark.slow

TINY = (
    *SMALL, "tracking=sqlite", "samples.calibration=5", "samples.selection=5", "samples.holdout=5", "batch_size=5",
    "space.first_layer=10", "noise.samples=2", "noise.variations=[batch]",
)  # fmt: skip


def beside(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# What a URL, a template, a pattern, a shell or an override may take for something else; and a long one.
NAMES = ["-my runs %2F? #é [a] {b} (c) 'd' e=f, $g", "x" * 200]


@pytest.mark.parametrize("name", NAMES)
def test_two_searches_in_a_folder_of_any_name_stay_in_it_and_apart(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is relative, so that a dash is the first thing that anybody sees of it."""
    monkeypatch.chdir(tmp_path)
    console, runs = Console(quiet=True), Path(name)
    for folder in (runs, runs / "other"):
        result = run_search(load_config(*TINY, "search=mine", text_setting("runs", str(folder))), console)
        assert load_policy(result.policy_file).tasks[TASK].measured["holdout"]["evaluations_of_this_holdout"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in runs.iterdir()} == {path.name for path in (runs / "other").iterdir()} | {"other"}
    for folder in (runs, runs / "other"):
        with sqlite3.connect(folder / "mlflow.db") as connection:
            [[count]] = connection.execute("select count(*) from tags where key = 'kind' and value = 'search'")
        assert count == 1
        with sqlite3.connect(folder / "mine" / "optuna.db") as connection:
            assert connection.execute("select count(*) from studies").fetchall() == [(1,)]
    # The same again, as a command, measures nothing.
    before = {path for path in beside(tmp_path) if "_records" in path}
    command = [sys.executable, "-m", "vtw_search", *TINY, "search=mine", text_setting("runs", name)]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert {path for path in beside(tmp_path) if "_records" in path} == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def looks(folder: Path) -> int:
    return len((folder / "runs" / "holdout_ledger.jsonl").read_text().splitlines())


def test_a_search_that_is_started_twice_is_run_once(tmp_path: Path) -> None:
    first = begin(tmp_path, "search=same", "tracking=sqlite")
    while not (tmp_path / "runs" / "same" / ".owner.json").exists():
        assert not first.wait(0.05), first.text
    second, third = begin(tmp_path, "search=same"), begin(tmp_path, "search=same", "tracking=sqlite", "wait_s=300")
    assert second.wait(120)
    assert second.status == 4, second.text
    owner = json.loads((tmp_path / "runs" / "same" / ".owner.json").read_text())
    assert owner["process"] == first.process.pid
    text = " ".join(second.text.split())
    assert f"process {first.process.pid} of {owner['user']} on {owner['host']}, since {owner['since']}, has it" in text
    worker = begin(tmp_path, "search=same", "worker=0")
    assert worker.wait(120)
    assert worker.status == 4, worker.text
    finish(first, third)
    assert "waiting" in third.text
    assert looks(tmp_path) == 1
    assert_no_record_twice(tmp_path)
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as connection:
        [[count]] = connection.execute("select count(*) from tags where key = 'kind' and value = 'search'")
    assert count == 1, "one tree"


def test_who_waits_for_a_search_that_is_killed_goes_on_with_it(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    search(plain, "search=plain")
    first = begin(tmp_path, "search=killed")
    while not list(tmp_path.glob("runs/_records/*/samples-*")):
        assert not first.wait(0.05), first.text
    second = begin(tmp_path, "search=killed", "wait_s=300")
    while "waiting" not in second.text:
        assert not second.wait(0.05), second.text
    began = time.monotonic()
    first.kill()
    finish(second)
    assert time.monotonic() - began < 200
    assert_same_rows(plain, "plain", tmp_path, "killed")
    assert_no_record_twice(tmp_path)


# --- Damage -----------------------------------------------------------------------------------------------------------

NO_JSON = random.Random(0).randbytes(300)
DAMAGES: dict[str, Callable[[bytes, Path], bytes]] = {
    "truncated": lambda content, path: content[: len(content) // 2],
    "empty": lambda content, path: b"",
    "garbage": lambda content, path: NO_JSON,
    "another type": lambda content, path: _of_another_type(path),
}


def _of_another_type(path: Path) -> bytes:
    """What is a file of its kind, and holds nothing that is expected of it."""
    other = path.with_name("of-another-type")
    if path.suffix == ".parquet":
        pd.DataFrame({"policy": [1.5]}).to_parquet(other)
    elif path.suffix == ".db":
        with sqlite3.connect(other) as connection:
            connection.execute("create table studies (x)")
        connection.close()
    else:
        other.write_text("[1]\n")
    content = other.read_bytes()
    other.unlink()
    return content


class Finished:
    """The `runs` folder of a search, and of another one that a worker finished, to be damaged and run again."""

    def __init__(self, folder: Path) -> None:
        self.runs, self._whole = folder / "runs", folder / "whole"
        self.run("mine")
        self.run("team")
        shutil.copytree(self.runs, self._whole)
        # Of what differs by a digest alone, one is enough; what nobody reads again, all at once.
        paths = [path.relative_to(self.runs) for path in sorted(self.runs.rglob("*")) if path.is_file()]
        self.written = [path for path in paths if path.suffix == ".lock" or {"records", "mlartifacts"} & {*path.parts}]
        read = [path for path in paths if path not in self.written]
        self.kinds = list({re.sub(r"[0-9a-f]{16,}", "*", str(path)): path for path in read}.values())
        self.chosen = {name: self.policy(name) for name in ("mine", "team")}

    def run(self, name: str) -> None:
        overrides = ("storage=journal", "worker=0", "tracking=none") if name == "team" else ()
        config = load_config(*TINY, f"search={name}", text_setting("runs", str(self.runs)), *overrides)
        (run_worker if config.worker is not None else run_search)(config, Console(quiet=True))

    def error_of(self, name: str) -> StoreError | None:
        try:
            self.run(name)
        except StoreError as error:
            return error
        return None

    def policy(self, name: str) -> Any:
        entry = load_policy(self.runs / name / "policy.json").tasks[TASK]
        return entry.policy, entry.measured["holdout"]["accuracy"]

    def restore(self) -> None:
        shutil.rmtree(self.runs)
        shutil.copytree(self._whole, self.runs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Model and reports are made once: hundreds of runs follow."""
    loaded = load_model("reference", device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vtw_search.preparation.load_model", lambda *_, **__: loaded)
        patch.setattr("vtw_search.driver.write_report", lambda *_: {"": [], TASK: []})
        yield Finished(tmp_path_factory.mktemp("damaged"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew_or_named_with_a_remedy(finished: Finished, damage: str) -> None:
    outcomes = {}
    for kinds in (finished.written, *([kind] for kind in finished.kinds)):
        finished.restore()
        for path in (finished.runs / kind for kind in kinds):
            path.write_bytes(DAMAGES[damage](path.read_bytes(), path))
        name, kind = "team" if kinds[0].parts[0] == "team" else "mine", kinds[-1]
        error = finished.error_of(name)
        if error is not None:
            assert error.remedy, (kind, error)
            assert str(path) in str(error), (kind, error)
            outcomes[str(kind)] = str(error)
            # As the remedies say; what can be measured again then is.
            path.unlink()
            finished.run(name)
        assert finished.policy(name) == finished.chosen[name], kind
    # Nobody can tell how many looks a ledger that is no ledger held: it is never made anew.
    assert ("holdout_ledger.jsonl" in outcomes) == (damage in ("garbage", "another type")), outcomes
