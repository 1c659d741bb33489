"""Where a result comes from: command, versions, settings."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vtw_search.tracking import redact

_PACKAGES = ("vtw-search", "torch", "transformers", "optuna", "fvcore")


def provenance(search: str, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a policy file says about how it was made."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "search": search,
        "seed": seed,
        "versions": {"python": platform.python_version(), **versions},
        "settings": dict(settings),
    }


def command_line() -> str:
    """Return the command that is running, without secrets."""
    return shlex.join([Path(sys.argv[0]).name, *map(redact, sys.argv[1:])])
