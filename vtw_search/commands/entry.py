"""What every command does around its work: say what is not installed, and end with one line on stderr."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vtw_search.errors import VtwError

# What a shell reports of a command that a closed pipe has ended.
_BROKEN_PIPE = 128 + 13


def run_command(name: str, needed: Sequence[str], work: Callable[[], None], interrupted: str) -> None:
    """Run `work`; bad input ends with one line and exit status 2, Ctrl-C with `interrupted` and 130."""
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        stop(name, f"{name} needs {', '.join(missing)}; pip install 'vtw-search[search]'", 2)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with_errors_in_one_line(name, work)
    except KeyboardInterrupt:
        stop(name, interrupted, 130)


def with_errors_in_one_line(name: str, work: Callable[[], None]) -> None:
    """Run `work`, and turn errors that the user can act on into one line and an exit status."""
    try:
        work()
    except VtwError as error:
        stop(name, str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever reads the output has had enough, like `head`. Python would write to the pipe once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_BROKEN_PIPE) from None
    except OSError as error:
        stop(name, told(error), 2)


def told(error: VtwError | OSError) -> str:
    """Return the line that tells a user of an error, with its remedy."""
    return str(error) if isinstance(error, VtwError) else f"{error}; free space or fix the permissions and run again"


def stop(name: str, message: str, status: int) -> NoReturn:
    """Print one line and exit."""
    print(f"{name}: {message}", file=sys.stderr)
    raise SystemExit(status)
