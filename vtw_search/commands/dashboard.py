"""MLflow's pages on the store of a `runs` folder, whatever the folder is called: `make dashboard`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vtw_search.commands.entry import run_command


def main() -> None:
    """Open the dashboard of the folder that is named first; what follows is for `mlflow ui`, such as `--port 5001`."""
    run_command("dashboard", ("mlflow",), _run, "stopped")


def _run() -> None:
    runs, *options = sys.argv[1:] or ["runs"]
    # Jobs would need a queue of their own; MLflow reports its use to its makers.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.execve(sys.executable, [sys.executable, *command(Path(runs)), *options], {**os.environ, **quiet})


def command(runs: Path) -> list[str]:
    """Return what Python is called with; StoreError where no search was tracked."""
    from vtw_search.databases import sqlite_url
    from vtw_search.errors import StoreError
    from vtw_search.tracking import TrackingSettings

    file = runs.expanduser().absolute() / "mlflow.db"
    if not file.exists():
        remedy = "name the folder of a search that was tracked: make dashboard RUNS=<folder>"
        raise StoreError("a dashboard needs the store of a search", value=str(file), remedy=remedy)
    uri = TrackingSettings(sqlite_url(file)).resolved_uri
    return ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--backend-store-uri", uri]


if __name__ == "__main__":
    main()
