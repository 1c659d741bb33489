"""One process owns a folder, or several share it; a dead one owns nothing; a second start is told who has it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from vtw_search.commands.search import main
from vtw_search.errors import InUseError
from vtw_search.ownership import Owner, Ownership
from vtw_search.profile_config import load_profile_config
from vtw_search.profile_driver import run_profile

HOLD = """
import sys, time
from pathlib import Path
from vtw_search.ownership import Ownership
with Ownership(Path(sys.argv[1]), "a search", say=print) as owner:
    owner.take()
    print("has it", flush=True)
    time.sleep(60)
"""


def own(folder: Path, **options: Any) -> Ownership:
    return Ownership(
        folder, options.pop("what", "a search"), **{"say": lambda text: None, "waits": "wait_s=3600", **options}
    )


def test_a_second_owner_is_told_who_has_it_since_when(tmp_path: Path) -> None:
    with own(tmp_path):
        noted = Owner(**json.loads((tmp_path / ".owner.json").read_text()))
        with pytest.raises(InUseError) as error:
            own(tmp_path).take()
        assert str(noted) in str(error.value)
        for part in (f"process {noted.process} of {noted.user} on {noted.host}", noted.since, "wait_s=", str(tmp_path)):
            assert part in str(error.value)
    with own(tmp_path), pytest.raises(InUseError):
        own(tmp_path).take()


def test_those_who_share_keep_only_others_out(tmp_path: Path) -> None:
    with own(tmp_path, shared=True, what="worker 0"), own(tmp_path, shared=True, what="worker 1") as second:
        with pytest.raises(InUseError, match="worker 1, process"):
            own(tmp_path).take()
        second.__exit__()
        with pytest.raises(InUseError):
            own(tmp_path).take()
    with own(tmp_path), pytest.raises(InUseError, match="a search, process"):
        own(tmp_path, shared=True).take()


def test_a_folder_is_not_made_before_it_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    with own(folder) as owner:
        assert not (tmp_path / "runs").exists()
        owner.take()
        owner.take()
        with pytest.raises(InUseError):
            own(folder).take()


def test_it_is_waited_for(tmp_path: Path) -> None:
    said, first = list[str](), own(tmp_path)
    first.take()
    threading.Timer(0.7, first.__exit__).start()
    began = time.monotonic()
    with own(tmp_path, wait_s=30, say=said.append):
        assert 0.6 < time.monotonic() - began < 10
    [text] = said
    assert f"{tmp_path} is in use by a search, process" in text
    assert text.endswith("waiting, 30 s at most")


def test_it_is_not_waited_for_longer_than_asked(tmp_path: Path) -> None:
    began = time.monotonic()
    with own(tmp_path), pytest.raises(InUseError):
        own(tmp_path, wait_s=0.3).take()
    assert 0.3 <= time.monotonic() - began < 5


def test_who_is_killed_owns_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    with pytest.raises(InUseError, match=f"process {process.pid} of"):
        own(tmp_path).take()
    process.kill()
    process.wait()
    process.stdout.close()
    assert (tmp_path / ".owner.json").exists(), "its note is left, and says nothing any more"
    with own(tmp_path):
        pass


def test_a_damaged_note_is_no_crash(tmp_path: Path) -> None:
    with own(tmp_path):
        (tmp_path / ".owner.json").write_text("{")
        with pytest.raises(InUseError, match="another process, has it"):
            own(tmp_path).take()


def test_the_command_ends_at_once_where_another_process_runs_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vtw_search.preparation.load_model", partial(pytest.fail, "the model was loaded"))
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    for worker, others in ([], False), (["worker=0"], False), ([], True):
        monkeypatch.setattr(sys, "argv", ["vtw-search", "task=digits_read", "search=mine", *worker])
        GlobalHydra.instance().clear()
        with own(tmp_path / "runs" / "mine", shared=others), pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 4
        [line] = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(
            "vtw-search: one process at a time works in a folder, got 'runs/mine'; a search, process"
        )


def test_a_profile_has_its_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    config = load_profile_config("recipe=vtw", "name=mine", f"runs={tmp_path}")
    with own(tmp_path / "mine", what="a profile"), pytest.raises(InUseError, match="a profile, process"):
        run_profile(config)
