"""`kill -9` at random moments, full and read-only disks, databases that are locked or gone: no work is lost."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from tests.servers import postgres
from tests.slow.searches import TASK, Run, assert_no_record_twice, assert_same_rows, begin, finish, rows_of
from vtw_search import Policy

# A space of 216 policies, explored by a sampler: none of them is measured twice, and 24 are in all.
SAMPLED = ("space=himap", "sampler=tpe", "sampler.trials=24", "sampler.batch=6")


def timed(run: Run) -> float:
    finish(run)
    return time.monotonic() - run.began


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An undisturbed enumerated search, and its seconds."""
    folder = tmp_path_factory.mktemp("plain")
    timed(begin(folder, "search=warm"))
    shutil.rmtree(folder / "runs")
    return folder, timed(begin(folder, "search=plain"))


@pytest.mark.slow
def test_thirty_kills_at_random_moments_change_no_row(plain: tuple[Path, float], tmp_path: Path) -> None:
    folder, seconds = plain
    moments, kills, completed = random.Random(20261123), 0, 0
    while kills < 30:
        run = begin(tmp_path, "search=killed")
        if run.wait(moments.uniform(0.05, 0.8) * seconds):
            assert run.status == 0, run.text
            assert_same_rows(folder, "plain", tmp_path, "killed")
            assert_no_record_twice(tmp_path)
            shutil.rmtree(tmp_path / "runs")
            completed += 1
        else:
            run.kill()
            kills += 1
    finish(begin(tmp_path, "search=killed"))
    assert_same_rows(folder, "plain", tmp_path, "killed")
    assert_no_record_twice(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("racing", ["racing.above=null", "racing.above=0"])
def test_a_sampler_that_is_killed_measures_what_an_undisturbed_one_does(racing: str, tmp_path: Path) -> None:
    overrides, folder = (*SAMPLED, racing), tmp_path / "killed"
    seconds = timed(begin(tmp_path, "search=plain", *overrides))
    folder.mkdir()
    moments, kills = random.Random(7), 0
    while kills < 8:
        run = begin(folder, "search=killed", *overrides)
        if run.wait(moments.uniform(0.2, 0.9) * seconds):
            break
        run.kill()
        kills += 1
    finish(begin(folder, "search=killed", *overrides))
    assert kills
    assert_same_rows(tmp_path, "plain", folder, "killed")
    assert_no_record_twice(folder)
    stopped = [row for row in rows_of(folder, "killed")[1] if row["stopped"]]
    assert bool(stopped) == (racing == "racing.above=0")


def explored(folder: Path, storage: str) -> optuna.Study:
    """The study that the workers of `search=shared` shared."""
    file = folder / "runs" / "shared" / f"optuna.{'db' if storage == 'sqlite' else 'journal'}"
    opened: optuna.storages.BaseStorage
    if storage == "sqlite":
        opened = optuna.storages.RDBStorage(f"sqlite:///{file}")
    else:
        backend = optuna.storages.journal.JournalFileBackend(str(file))
        opened = optuna.storages.JournalStorage(backend)
    [name] = [name for name in optuna.get_all_study_names(opened) if "exploring" in name]
    return optuna.load_study(study_name=name, storage=opened)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_workers_of_a_sampler_that_are_killed_lose_double_and_leave_nothing(storage: str, tmp_path: Path) -> None:
    overrides = ("search=shared", *SAMPLED, "racing.above=null", f"storage={storage}", "storage.lease_s=2")
    moments, kills = random.Random(11), 0
    runs = {number: begin(tmp_path, *overrides, f"worker={number}") for number in range(2)}
    while kills < 6:
        victim = moments.randrange(2)
        # It has begun to work, on a busy machine as well.
        while "to do" not in runs[victim].text and not runs[victim].wait(0.1):
            pass
        if runs[victim].wait(moments.uniform(0, 5)):
            break
        runs[victim].kill()
        kills += 1
        runs[victim] = begin(tmp_path, *overrides, f"worker={victim}")
    finish(*runs.values())
    finish(begin(tmp_path, *overrides, "worker=0"))
    trials = explored(tmp_path, storage).trials
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    measured = [trial.params for trial in trials if trial.state == TrialState.COMPLETE]
    assert len({str(sorted(params.items())) for params in measured}) == len(measured), "a policy is on the board once"
    frame, rows = rows_of(tmp_path, "shared")
    exported = {Policy.model_validate(row["policy"]).digest() for row in rows}
    assert len(exported) >= 24, "24 candidates, and the baselines of the answer"
    assert set(frame["policy"]) == exported
    counts = frame.groupby("policy").size()
    assert set(counts) == {20}, "every candidate has every sample"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, mounted at `tmp_path/disk`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = mount(folder, "-t", "tmpfs", "-o", "size=600k", "tmpfs")
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def mount(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("mount") is None:
        return subprocess.CompletedProcess([], 1, "", "there is no program mount")
    return subprocess.run(["mount", *options, str(folder)], check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_a_full_disk_and_a_read_only_one_stop_with_a_message_and_damage_nothing(
    plain: tuple[Path, float], disk: Path, tmp_path: Path
) -> None:
    runs = f"runs={disk / 'runs'}"
    full = begin(tmp_path, "search=full", runs)
    assert full.wait(300)
    assert full.status == 2
    assert "No space left on device" in full.text or "disk is full" in full.text
    assert "run again" in full.text
    assert mount(disk, "-o", "remount,size=60m").returncode == 0
    assert mount(disk, "-o", "remount,ro").returncode == 0
    read_only = begin(tmp_path, "search=full", runs)
    assert read_only.wait(300)
    assert read_only.status == 2
    assert "Read-only file system" in read_only.text
    assert mount(disk, "-o", "remount,rw").returncode == 0
    finish(begin(tmp_path, "search=full", runs))
    assert_same_rows(plain[0], "plain", disk, "full")


@pytest.mark.slow
def test_a_locked_study_stops_with_a_message_and_the_next_run_measures_nothing_again(
    plain: tuple[Path, float], tmp_path: Path
) -> None:
    finish(begin(tmp_path, "search=locked"))
    before = sorted((tmp_path / "runs" / "_records").rglob("samples-*"))
    connection = sqlite3.connect(tmp_path / "runs" / "locked" / "optuna.db", isolation_level=None)
    connection.execute("begin exclusive")
    run = begin(tmp_path, "search=locked", "storage.patience_s=1")
    assert run.wait(120)
    assert run.status == 2
    assert "does not answer (database is locked); trying for 1 s" in " ".join(run.text.split())
    assert "must answer: database is locked" in " ".join(run.text.split())
    connection.execute("rollback")
    connection.close()
    finish(begin(tmp_path, "search=locked"))
    assert sorted((tmp_path / "runs" / "_records").rglob("samples-*")) == before
    assert_same_rows(plain[0], "plain", tmp_path, "locked")


@pytest.mark.slow
def test_a_search_outlives_lost_connections_and_continues_after_a_server_that_was_away(
    plain: tuple[Path, float], tmp_path: Path
) -> None:
    with postgres() as server:
        overrides = ("search=lost", "storage=postgres", f"storage.url={server.url}", "worker=0", "storage.lease_s=2")
        run = begin(tmp_path, *overrides)
        # Between two losses there is time for some work: on a busy machine a connection takes longer, too.
        moments, cuts = random.Random(5), 0
        while not run.wait(moments.uniform(0.2, 0.5) * plain[1]):
            server.cut_connections()
            cuts += 1
        assert run.status == 0, run.text
        assert cuts > 0
        assert_same_rows(plain[0], "plain", tmp_path, "lost")
        shutil.rmtree(tmp_path / "runs")
        away = begin(tmp_path, *overrides, "storage.patience_s=1")
        while not list((tmp_path / "runs").rglob("samples-*")):
            assert not away.wait(0.1), away.text
        server.stop()
        assert away.wait(120)
        assert away.status == 2, away.text
        assert "must answer" in away.text
        shards = {path.name for path in (tmp_path / "runs").rglob("samples-*")}
        server.start()
        finish(begin(tmp_path, *overrides))
        assert shards <= {path.name for path in (tmp_path / "runs").rglob("samples-*")}
        assert_same_rows(plain[0], "plain", tmp_path, "lost")
        assert_no_record_twice(tmp_path)


@pytest.mark.slow
def test_the_helper_of_these_tests_sees_a_difference(plain: tuple[Path, float], tmp_path: Path) -> None:
    """What the tests above rest on: changed rows, answers and doubled records are noticed."""
    shutil.copytree(plain[0] / "runs", tmp_path / "runs")
    assert_same_rows(plain[0], "plain", tmp_path, "plain")
    file = tmp_path / "runs" / "plain" / "records" / TASK / "samples.parquet"
    frame = pd.read_parquet(file)
    frame.loc[3, "kl_answer_nats"] += 0.01
    frame.to_parquet(file, index=False)
    with pytest.raises(AssertionError):
        assert_same_rows(plain[0], "plain", tmp_path, "plain")
    shard = next((tmp_path / "runs" / "_records").rglob("samples-*"))
    shutil.copy(shard, shard.with_name("samples-again.parquet"))
    with pytest.raises(AssertionError):
        assert_no_record_twice(tmp_path)
