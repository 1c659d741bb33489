"""What every command does around its work: say what is not installed, and end with one line on stderr."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from vtw_search.broken_imports import OWN_PACKAGES, broken_import
from vtw_search.errors import ConfigError, VtwError, near_matches

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


def hydra_arguments(name: str) -> argparse.Namespace:
    """Return Hydra's view of the command line, in which `~` has become the user's home, as in a shell.

    Raises:
        ConfigError: an option stands between overrides, or there is no such option.
    """
    from hydra._internal.utils import get_args_parser

    from vtw_search.overrides import home_expanded

    sys.argv[1:] = map(home_expanded, sys.argv[1:])  # where Hydra reads it, too
    parser = get_args_parser()
    parser.error = partial(_refuse, name)  # type: ignore[method-assign]
    arguments, left = parser.parse_known_args()
    if left:
        options = [option for action in parser._actions for option in action.option_strings]
        raise _misplaced(name, arguments.overrides, left, options)
    return arguments


def _refuse(name: str, message: str) -> NoReturn:
    raise ConfigError(message, remedy=f"{name} --help lists what can be set")


def _misplaced(name: str, overrides: Sequence[str], left: Sequence[str], options: Sequence[str]) -> ConfigError:
    unknown = [argument for argument in left if argument.startswith("-")]
    if unknown:
        return ConfigError(f"unknown option {unknown[0]!r}", remedy=near_matches(unknown[0], options))
    late = {*overrides, *left}
    first = [argument for argument in sys.argv[1:] if argument not in late]
    remedy = f"write {shlex.join([name, *first, *(each for each in sys.argv[1:] if each in late)])}"
    return ConfigError("options come before all overrides", value=" ".join(first), remedy=remedy)


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
    except ImportError as error:
        if (error.name or "").partition(".")[0] in OWN_PACKAGES:
            raise  # a fault of ours
        stop(name, str(broken_import(error)), 2)
    except OSError as error:
        stop(name, told(error), 2)


def told(error: VtwError | OSError) -> str:
    """Return the line that tells a user of an error, with its remedy."""
    return str(error) if isinstance(error, VtwError) else f"{error}; free space or fix the permissions and run again"


def stop(name: str, message: str, status: int) -> NoReturn:
    """Print one line and exit."""
    print(f"{name}: {message}", file=sys.stderr)
    raise SystemExit(status)
