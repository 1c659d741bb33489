"""Several workers of one search: the rows of one, one answer, and nothing lost with a worker that dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.servers import Server
from tests.slow.searches import SMALL, assert_same_rows, begin, finish

# Eight pieces of work: the samples of both splits in batches of five.
PIECES = ("samples.calibration=20", "samples.selection=20", "batch_size=5")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    finish(begin(folder, "search=alone", *PIECES))
    return folder


def ledger(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "runs" / "holdout_ledger.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_four_workers_on_postgresql_give_the_rows_of_one(server: Server, alone: Path, tmp_path: Path) -> None:
    overrides = ("search=four", *PIECES, "storage=postgres", f"storage.url={server.url}", "storage.lease_s=10")
    runs = [begin(tmp_path, *overrides, f"worker={number}") for number in range(4)]
    finish(*runs)
    assert_same_rows(alone, "alone", tmp_path, "four")
    assert sum("finishes the search" in run.text for run in runs) == 1
    assert sum("nothing is left to do, worker" in run.text for run in runs) == 3
    assert len(ledger(tmp_path)) == 1, "the holdout was looked at once"
    assert "vtw@" not in (tmp_path / "runs" / "four" / "config.yaml").read_text(), "users are not written down"


@pytest.mark.slow
def test_one_of_four_that_is_killed_loses_nothing(server: Server, alone: Path, tmp_path: Path) -> None:
    overrides = ("search=killed", *PIECES, "storage=postgres", f"storage.url={server.url}", "storage.lease_s=3")
    runs = [begin(tmp_path, *overrides, f"worker={number}") for number in range(4)]
    while not (runs[1].status is not None or _at_samples(_leases_of_worker_1(server))):
        time.sleep(0.02)
    runs[1].kill()
    finish(*(runs[number] for number in (0, 2, 3)))
    assert_same_rows(alone, "alone", tmp_path, "killed")


def _leases_of_worker_1(server: Server) -> list[str]:
    # The first worker that connects makes the table.
    if not server.sql("select table_name from information_schema.tables where table_name = 'vtw_leases'"):
        return []
    return server.sql(
        "select name from vtw_leases where scope = 'killed' and owner like 'worker 1,%' and name like '% % %'"
    )


def _at_samples(names: list[str]) -> bool:
    return any(" calibration " in name or " selection " in name for name in names)


@pytest.mark.slow
def test_a_finishing_worker_that_is_killed_is_followed_by_another(alone: Path, tmp_path: Path) -> None:
    overrides = ("search=finish", *PIECES, "storage.lease_s=2")
    workers = [begin(tmp_path, *overrides, f"worker={number}") for number in range(2)]
    # Either may be the one that finishes.
    while not (finishing := [worker for worker in workers if "finishes the search" in worker.text]):
        assert not any(worker.wait(0.01) for worker in workers), [worker.text for worker in workers]
    finishing[0].kill()
    (other,) = (worker for worker in workers if worker is not finishing[0])
    finish(other)
    number = workers.index(other)
    assert f"worker {number}: everything is measured, finishes the search" in other.text
    assert_same_rows(alone, "alone", tmp_path, "finish")


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "vtw_search", "-m", *SMALL, *PIECES, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


def assert_launched(run: subprocess.CompletedProcess[str], alone: Path, folder: Path) -> None:
    assert run.returncode == 0, run.stdout + run.stderr
    assert_same_rows(alone, "alone", folder, "launched")
    assert [path.name for path in (folder / "runs").iterdir() if (path / "policy.json").exists()] == ["launched"]
    assert len(ledger(folder)) == 1


def needs(package: str, module: str) -> None:
    if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{module}") is None:
        pytest.skip(f"{package} is not installed (extra `workers` or `ray`)")


@pytest.mark.slow
def test_joblib_launches_the_workers_of_one_search(alone: Path, tmp_path: Path) -> None:
    needs("hydra-joblib-launcher", "hydra_joblib_launcher")
    run = launch(
        tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "worker=range(4)", "search=launched",
        "tracking=sqlite",
    )  # fmt: skip
    assert_launched(run, alone, tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'vtw-search'")
    [parent] = client.search_runs([experiment.experiment_id], "tags.kind = 'search'")
    assert parent.info.status == "FINISHED"
    assert "sweep" not in parent.data.tags, "workers of one search are no sweep"


@pytest.mark.slow
def test_submitit_launches_the_workers_of_one_search(alone: Path, tmp_path: Path) -> None:
    needs("hydra-submitit-launcher", "hydra_submitit_launcher")
    run = launch(
        tmp_path, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=8", "worker=range(2)", "search=launched"
    )
    assert_launched(run, alone, tmp_path)


@pytest.mark.slow
def test_ray_launches_the_workers_of_one_search_on_a_cluster_of_two(alone: Path, tmp_path: Path) -> None:
    needs("hydra-ray-launcher", "hydra_ray_launcher")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        run = launch(
            tmp_path, "hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster.address}",
            # The launcher gives it a size, which Ray refuses for a cluster that runs already.
            "+hydra.launcher.ray.init.object_store_memory=null",
            "worker=range(2)", "search=launched", f"runs={tmp_path}/runs",
        )  # fmt: skip
    finally:
        cluster.shutdown()
    assert_launched(run, alone, tmp_path)


@pytest.mark.slow
def test_without_a_launcher_the_workers_run_one_after_the_other(alone: Path, tmp_path: Path) -> None:
    run = launch(tmp_path, "worker=range(2)", "search=launched")
    assert_launched(run, alone, tmp_path)
    assert "worker 1: nothing is left to do, worker 0 finished it" in run.stdout
