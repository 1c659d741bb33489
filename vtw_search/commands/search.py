"""`vtw-search`: a Hydra application over `conf/`."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from vtw_search.commands.entry import hydra_arguments, run_command, told, with_errors_in_one_line

_NEEDED = (
    "hydra",
    "optuna",
    "fvcore",
    "pandas",
    "pyarrow",
    "scipy",
    "matplotlib",
    "plotly",
    "rich",
    "mlflow",
    "filelock",
)


def main() -> None:
    """Run a search, or a sweep of searches; bad input ends with one line on stderr and exit status 2."""
    run_command("vtw-search", _NEEDED, _run, "stopped; the same command continues where this one was")


def _run() -> None:
    """Check the command line first, so that a typing error costs nothing, then hand over to Hydra."""
    import hydra
    from omegaconf import DictConfig

    from vtw_search.config import load_config, validate

    arguments = hydra_arguments("vtw-search")
    if not (arguments.help or arguments.hydra_help or arguments.info or arguments.cfg):
        extra = [str(Path(arguments.config_dir).resolve())] if arguments.config_dir else []
        for overrides in _jobs(arguments.overrides, arguments.multirun):
            load_config(*overrides, config_dirs=extra)
    if arguments.multirun:
        sys.argv += _sweep(arguments.overrides)
        # Hydra then raises what ended a search, once the others are through, instead of printing a traceback.
        os.environ["HYDRA_FULL_ERROR"] = "1"

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
    def job(composed: DictConfig) -> None:
        # Loaded once the command line is known to be right: it takes seconds.
        from rich.console import Console
        from transformers.utils import logging

        from vtw_search.driver import run_search
        from vtw_search.worker_driver import run_worker

        if not sys.stderr.isatty():
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        # Tables need 100 columns; a narrower terminal wraps them, which loses nothing.
        width = max(100, shutil.get_terminal_size((110, 24)).columns)

        def search() -> None:
            config = validate(composed)
            run = run_search if config.worker is None else run_worker
            run(config, Console(width=width))

        if arguments.multirun:
            _one_of_many(search)
        else:
            # Hydra would answer an error with a traceback.
            with_errors_in_one_line("vtw-search", search)

    job()


def _one_of_many(search: Callable[[], None]) -> None:
    """Run one search of a multirun: what ends it is told at once, and the other searches go on."""
    from vtw_search.errors import VtwError

    try:
        search()
    except BrokenPipeError:
        raise  # there is nobody left to tell
    except (VtwError, OSError) as error:
        print(f"vtw-search: {told(error)}", file=sys.stderr)
        raise
    except Exception:
        # Of all that searches raise, Hydra shows the first alone.
        traceback.print_exc()
        raise


def _sweep(overrides: list[str]) -> list[str]:
    """Return the override that groups the searches of a multirun; none where all of its jobs work on one search."""
    from vtw_search.overrides import parsed

    items = parsed(overrides)
    swept = {item.get_key_element() for item in items if item.is_sweep_override()}
    workers = any(item.get_key_element() == "worker" for item in items)
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:8]
    return [] if workers and swept <= {"worker"} else [f"sweep=sweep-{digest}"]


def _jobs(overrides: list[str], multirun: bool) -> Iterator[list[str]]:
    """Yield the overrides of every job that Hydra is going to run."""
    from hydra.core.override_parser.types import Glob

    from vtw_search.overrides import parsed

    # A glob needs the loaded configuration; Hydra expands it, and each job is checked when it starts.
    items = parsed(overrides)
    if any(isinstance(item.value(), Glob) for item in items):
        return
    choices = [
        [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]
        if multirun and item.is_sweep_override()
        else [str(item.input_line)]
        for item in items
    ]
    yield from map(list, itertools.product(*choices))
