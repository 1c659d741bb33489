"""Small searches on the shipped model, in this process or in ones that can be killed, and what they leave."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from vtw_search.config import load_config
from vtw_search.driver import SearchResult, run_search
from vtw_search.errors import VtwError
from vtw_search.settings import SearchConfig
from vtw_search.worker_driver import run_worker

TASK = "digits_read"
SMALL = (
    f"task={TASK}", "tracking=none", "profile=macs", "batch_size=5", "model.device=cpu",
    "samples.calibration=10", "samples.selection=10", "samples.confirmation=0", "samples.holdout=10",
    "limits.confidence=null", "noise.samples=0",
)  # fmt: skip


def small_config(folder: Path, *overrides: str) -> SearchConfig:
    return load_config(*SMALL, f"runs={folder / 'runs'}", *overrides)


def search(folder: Path, *overrides: str) -> SearchResult:
    with (folder / "output.txt").open("a") as stream:
        return run_search(small_config(folder, *overrides), Console(file=stream, width=110))


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "vtw_search", *SMALL, *overrides]


def rows_of(folder: Path, name: str) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The exported records and measurements of a search."""
    records = folder / "runs" / name / "records" / TASK
    lines = (records / "measurements.jsonl").read_text().splitlines()
    return pd.read_parquet(records / "samples.parquet"), [json.loads(line) for line in lines]


def assert_same_rows(left: Path, left_name: str, right: Path, right_name: str) -> None:
    """Records, measurements, front and answer are the same, timing columns and rounding aside."""
    (left_frame, left_rows), (right_frame, right_rows) = rows_of(left, left_name), rows_of(right, right_name)
    exact = [name for name in left_frame.columns if not name.startswith("kl_")]
    pd.testing.assert_frame_equal(left_frame[exact], right_frame[exact])
    pd.testing.assert_frame_equal(left_frame, right_frame, rtol=1e-4, atol=1e-6)
    assert [row["policy"] for row in left_rows] == [row["policy"] for row in right_rows]
    for mine, other in zip(left_rows, right_rows, strict=True):
        assert _numbers(mine) == pytest.approx(_numbers(other), rel=1e-4, abs=1e-6)
    assert _front(left, left_name) == _front(right, right_name)
    assert _chosen(left, left_name) == _chosen(right, right_name)


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a measurement, time aside."""
    return {name: value for name, value in row.items() if isinstance(value, int | float) and "latency" not in name}


def _front(folder: Path, name: str) -> list[str]:
    table = pd.read_csv(folder / "runs" / name / "report" / TASK / "front.csv")
    return [str(label) for label in table.iloc[:, 0]]


def _chosen(folder: Path, name: str) -> Any:
    return json.loads((folder / "runs" / name / "policy.json").read_text())["tasks"][TASK]["policy"]


def assert_no_record_twice(folder: Path) -> None:
    """Nothing was measured twice: shards of sample records, as they were written, have no key in common."""
    for store in (folder / "runs" / "_records").iterdir():
        shards = [pd.read_parquet(path) for path in store.glob("samples-*.parquet")]
        assert not pd.concat(shards).duplicated(["policy", "split", "sample"]).any()


# A process that has imported everything and does nothing: children of it begin at once.
_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass
class Run:
    """A search in a process of its own.

    Attributes:
        process: which.
        output: file of what it prints.
        began: when.
    """

    process: BaseProcess
    output: Path
    began: float

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.join()

    @property
    def status(self) -> int | None:
        return self.process.exitcode

    @property
    def text(self) -> str:
        return self.output.read_text()


def begin(folder: Path, *overrides: str) -> Run:
    """Begin a search in `folder`; it is a worker if `worker` is among the overrides."""
    _CONTEXT.set_forkserver_preload([__name__])
    number = len(list(folder.glob("output-*.txt")))
    output = folder / f"output-{number}.txt"
    output.touch()
    process = _CONTEXT.Process(target=_run, args=(folder, output, overrides))
    process.start()
    return Run(process, output, time.monotonic())


def finish(*runs: Run, seconds: float = 300) -> None:
    """Wait for runs to end well."""
    for run in runs:
        assert run.wait(seconds), f"did not end: {run.text}"
        assert run.status == 0, run.text


def _run(folder: Path, output: Path, overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    with output.open("w", buffering=1) as stream:
        config = load_config(*SMALL, *overrides)
        try:
            (run_search if config.worker is None else run_worker)(config, Console(file=stream, width=110))
        except VtwError as error:
            print(f"vtw-search: {error}", file=stream)
            sys.exit(error.exit_code)
