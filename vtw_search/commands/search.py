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
from typing import TYPE_CHECKING

from vtw_search.commands.entry import run_command, told, with_errors_in_one_line

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

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
    from hydra._internal.utils import get_args_parser
    from omegaconf import DictConfig

    from vtw_search.config import load_config, validate

    arguments = get_args_parser().parse_args()
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
    parsed = _parsed(overrides)
    swept = {item.get_key_element() for item in parsed if item.is_sweep_override()}
    workers = any(item.get_key_element() == "worker" for item in parsed)
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:8]
    return [] if workers and swept <= {"worker"} else [f"sweep=sweep-{digest}"]


def _parsed(overrides: list[str]) -> list[Override]:
    """Parse overrides; ConfigError if one cannot be read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    from vtw_search.errors import ConfigError

    try:
        return OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        remedy = "overrides look like group=option or key.sub=value; quote brackets in a shell: 'task=[a,b]'"
        raise ConfigError("an override must be readable", value=error.override, remedy=remedy) from error


def _jobs(overrides: list[str], multirun: bool) -> Iterator[list[str]]:
    """Yield the overrides of every job that Hydra is going to run."""
    from hydra.core.override_parser.types import Glob

    parsed = _parsed(overrides)
    # A glob needs the loaded configuration; Hydra expands it, and each job is checked when it starts.
    if any(isinstance(item.value(), Glob) for item in parsed):
        return
    choices = [
        [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]
        if multirun and item.is_sweep_override()
        else [str(item.input_line)]
        for item in parsed
    ]
    yield from map(list, itertools.product(*choices))
