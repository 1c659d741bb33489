"""`vtw-profile`: what a policy costs and gains, in every regime asked for."""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

from vtw_search.commands.entry import hydra_arguments, run_command
from vtw_search.errors import ConfigError

_USAGE = """vtw-profile: what a policy costs and gains, in every regime asked for.

    vtw-profile policy=runs/my-search/policy.json policy_task=digits_read
    vtw-profile recipe=vtw recipe.layer=16 model=llava_1_5_7b weights=random profile=macs

Settings and their defaults; groups, such as model, are the folders of conf:
"""
_NEEDED = ("hydra", "fvcore", "scipy", "matplotlib", "rich", "mlflow")


def main() -> None:
    """Profile a policy; bad input ends with one line on stderr and exit status 2."""
    run_command("vtw-profile", _NEEDED, _run, "stopped")


def _run() -> None:
    from rich.console import Console
    from transformers.utils import logging

    from vtw_search.profile_config import load_profile_config
    from vtw_search.profile_driver import run_profile

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    arguments = hydra_arguments("vtw-profile")
    if arguments.help:
        print(_USAGE, resources.files("conf").joinpath("vtw_profile.yaml").read_text(), sep="\n", end="")
        return
    if arguments.multirun:
        remedy = "give an axis its values in brackets: 'profile.batch=[1,8]'"
        raise ConfigError("one profile has all its regimes; there is no --multirun", remedy=remedy)
    extra = [str(Path(arguments.config_dir).resolve())] if arguments.config_dir else []
    config = load_profile_config(*arguments.overrides, config_dirs=extra)
    run_profile(config, Console(width=max(150, shutil.get_terminal_size((150, 24)).columns)))


if __name__ == "__main__":
    main()
