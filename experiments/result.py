"""The form of an experiment's result: `results/result.json` with environment, seed and claims."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from vtw_search.files import write_text_atomically


@dataclass(frozen=True)
class Claim:
    """One number and what it had to be.

    Attributes:
        name: what was measured.
        value, unit: the number.
        target: what it is held against; None for a number that is only reported.
        sense: whether the value has to be at least or at most the target.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    sense: Literal["at least", "at most"] = "at least"

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.sense == "at least" else self.value <= self.target


def environment() -> dict[str, Any]:
    """Return what a reader needs to judge the numbers."""
    packages = ("torch", "transformers", "optuna", "fvcore", "mlflow", "hydra-core")
    return {
        "python": platform.python_version(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
        **{name: _version(name) for name in packages},
    }


def _version(name: str) -> str | None:
    """Return the version of a package; None where it is not installed, as on a machine for one experiment alone."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def write_result(folder: Path, seed: int, claims: Sequence[Claim], details: Mapping[str, Any] | None = None) -> None:
    """Write `results/result.json` of the experiment in `folder` and print its claims."""
    rows = [{**asdict(claim), "met": claim.met} for claim in claims]
    content = {"environment": environment(), "seed": seed, "claims": rows, "details": dict(details or {})}
    write_text_atomically(folder / "results" / "result.json", json.dumps(content, indent=2) + "\n")
    for claim in claims:
        print(
            f"{claim.name}: {claim.value:.4g} {claim.unit}"
            + (
                f" ({claim.sense} {claim.target:g}: {'met' if claim.met else 'MISSED'})"
                if claim.target is not None
                else ""
            )
        )
