"""Time the main job as a new user runs it: `python -m experiments.quickstart.run`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from experiments.result import Claim, write_result
from vtw_search.policies import load_policy

HERE = Path(__file__).parent


def main() -> None:
    """Run `vtw-search` with its defaults in an empty folder, then again, and with other limits."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, output = [], ""
        for overrides in (["search=quickstart"], ["search=quickstart"], ["search=quickstart", "limits.kl_nats=0.05"]):
            began = time.perf_counter()
            command = [sys.executable, "-m", "vtw_search", *overrides]
            run = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            seconds.append(time.perf_counter() - began)
            output = output or run.stdout
        config = yaml.safe_load(Path(folder, "runs", "quickstart", "config.yaml").read_text())
        tasks = load_policy(Path(folder, "runs", "quickstart", "policy.json")).tasks
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "output.txt").write_text(output)
    claims = [
        Claim("main job, four tasks, everything measured", seconds[0] / 60, "minutes", 3.0, "at most"),
        Claim("the same command again", seconds[1], "s"),
        Claim("other limits on the same records", seconds[2], "s"),
    ]
    write_result(HERE, 0, claims, {"samples": config["samples"], "tasks": sorted(tasks)})


if __name__ == "__main__":
    main()
