"""`vtw-profile`: what a policy costs and gains, in every regime asked for."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from vtw_search.errors import VtwError

_NEEDED = ("hydra", "fvcore", "scipy", "matplotlib", "rich", "mlflow")


def main() -> None:
    """Profile a policy; bad input ends with one line on stderr and exit status 2."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        _stop(f"vtw-profile needs {', '.join(missing)}; pip install 'vtw-search[search]'", 2)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        _run()
    except VtwError as error:
        _stop(str(error), error.exit_code)
    except OSError as error:
        _stop(f"{error}; free space or fix the permissions and run again", 2)
    except KeyboardInterrupt:
        _stop("stopped", 130)


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


def _stop(message: str, status: int) -> NoReturn:
    print(f"vtw-profile: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
