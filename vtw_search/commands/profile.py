"""`vtw-profile`: what a policy costs and gains, in every regime asked for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from vtw_search.commands.entry import run_command

_NEEDED = ("hydra", "fvcore", "scipy", "matplotlib", "rich", "mlflow")


def main() -> None:
    """Profile a policy; bad input ends with one line on stderr and exit status 2."""
    run_command("vtw-profile", _NEEDED, _run, "stopped")


def _run() -> None:
    from hydra._internal.utils import get_args_parser
    from rich.console import Console
    from transformers.utils import logging

    from vtw_search.profile_config import load_profile_config
    from vtw_search.profile_driver import run_profile

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    arguments = get_args_parser().parse_args()
    extra = [str(Path(arguments.config_dir).resolve())] if arguments.config_dir else []
    config = load_profile_config(*arguments.overrides, config_dirs=extra)
    run_profile(config, Console(width=max(150, shutil.get_terminal_size((150, 24)).columns)))


if __name__ == "__main__":
    main()
