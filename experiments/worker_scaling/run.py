"""How much faster two workers are than one: `python -m experiments.worker_scaling.run`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.result import Claim, write_result

TASK, ROUNDS = "digits_read", 2
SEARCH = (
    f"task={TASK}", "search=scaling", "tracking=none", "profile=macs", "model.device=cpu", "batch_size=25",
    "samples.calibration=100", "samples.selection=200", "samples.confirmation=0", "samples.holdout=25",
    "limits.confidence=null", "noise.samples=0",
)  # fmt: skip


@dataclass(frozen=True)
class Times:
    """Seconds of a search: of its shared part, and from the command to the policy file."""

    shared: float
    whole: float


class Worker:
    """One worker's process; every line that it prints gets its time."""

    def __init__(self, folder: Path, number: int) -> None:
        command = [sys.executable, "-m", "vtw_search", *SEARCH, f"worker={number}"]
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, cwd=folder, env=alone, stdout=subprocess.PIPE, text=True)
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.perf_counter(), line))

    def wait(self) -> None:
        """Wait for its end, which must be a good one."""
        assert self.process.wait() == 0, "".join(line for _, line in self.lines)
        self._reader.join()

    def seconds_of(self, text: str) -> list[float]:
        """Return when lines with `text` were printed."""
        return [seconds for seconds, line in self.lines if text in line]


def search(workers: int) -> tuple[Times, pd.DataFrame]:
    """Run one search with so many workers; returns its times and its records."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        running = [Worker(Path(folder), number) for number in range(workers)]
        for worker in running:
            worker.wait()
        ended = time.perf_counter()
        first = min(worker.seconds_of(f"{TASK} calibration:")[0] for worker in running)
        [last] = [seconds for worker in running for seconds in worker.seconds_of("everything is measured")]
        records = pd.read_parquet(Path(folder, "runs", "scaling", "records", TASK, "samples.parquet"))
    return Times(last - first, ended - began), records


def main() -> None:
    """Measure one worker and two in turn."""
    times: dict[int, list[Times]] = {1: [], 2: []}
    first: pd.DataFrame | None = None
    for number in range(ROUNDS):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            found, records = search(workers)
            times[workers].append(found)
            first = records if first is None else first
            pd.testing.assert_frame_equal(records, first)
            print(f"{workers} workers: {found.shared:.1f} s shared, {found.whole:.1f} s in all", flush=True)
    shared, whole = (
        statistics.fmean(getattr(each, name) for each in times[1])
        / statistics.fmean(getattr(each, name) for each in times[2])
        for name in ("shared", "whole")
    )
    claims = [
        Claim("two workers against one, measuring all candidates", shared, "times faster", 1.7),
        Claim("two workers against one, from the command to the policy file", whole, "times faster"),
        Claim("one worker, measuring all candidates", statistics.fmean(each.shared for each in times[1]), "s"),
    ]
    seconds = {str(workers): [[each.shared, each.whole] for each in found] for workers, found in times.items()}
    write_result(Path(__file__).parent, 0, claims, {"seconds": seconds, "search": list(SEARCH)})


if __name__ == "__main__":
    main()
