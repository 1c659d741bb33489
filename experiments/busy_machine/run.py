"""Time the quick start alone and beside busy loops: `python -m experiments.busy_machine.run`."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.result import Claim, write_result

HERE = Path(__file__).parent
BUSY = [sys.executable, "-c", "while True: pass"]


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        seconds: from start to end of the command.
        timed: policies that have a time.
        unreliable: those of them whose time is called unreliable.
    """

    seconds: float
    timed: int
    unreliable: int


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep `count` cores busy in the `with` block."""
    with ExitStack() as running:
        for _ in range(count):
            loop = running.enter_context(subprocess.Popen(BUSY))
            running.callback(loop.kill)
        yield


def search(overrides: Sequence[str]) -> Run:
    """Run `vtw-search` in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "vtw_search", "search=busy", *overrides]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        lines = [
            json.loads(line)
            for path in Path(folder, "runs", "busy", "records").glob("*/measurements.jsonl")
            for line in path.read_text().splitlines()
        ]
    problems = [line["latency_problems"] for line in lines if line["latency_ms"] is not None]
    return Run(seconds, len(problems), sum(each is not None for each in problems))


def main() -> None:
    """Run both in turn, each first in every other round; the claim is the median of the rounds' ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("overrides", nargs="*", help="of the search, such as experiment=quick; none: its defaults")
    parsed = parser.parse_args()
    runs: dict[str, list[Run]] = {"quiet": [], "busy": []}
    for number in range(parsed.rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            with busy_loops(parsed.loops if name == "busy" else 0):
                runs[name].append(search(parsed.overrides))
            print(f"round {number + 1}, {name}: {runs[name][-1]}", flush=True)
    ratios = [busy.seconds / quiet.seconds for quiet, busy in zip(runs["quiet"], runs["busy"], strict=True)]
    medians = {name: statistics.median(each.seconds for each in found) for name, found in runs.items()}
    beside = f"quick start beside {parsed.loops} busy loops"
    claims = [
        Claim("quick start alone", medians["quiet"], "s"),
        Claim(beside, medians["busy"], "s"),
        Claim(f"{beside}, against alone", statistics.median(ratios), "times", 2.5, "at most"),
        Claim("times called unreliable alone", _unreliable(runs["quiet"]), "of all"),
        Claim("times called unreliable beside busy loops", _unreliable(runs["busy"]), "of all"),
    ]
    details = {name: [asdict(each) for each in found] for name, found in runs.items()}
    write_result(HERE, 0, claims, {"overrides": parsed.overrides, "loops": parsed.loops, **details})


def _unreliable(runs: Sequence[Run]) -> float:
    return sum(each.unreliable for each in runs) / sum(each.timed for each in runs)


if __name__ == "__main__":
    main()
