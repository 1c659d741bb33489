"""Accuracy and KL over the withdrawal layer, for all shipped tasks: `python -m experiments.layer_curves.run`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from experiments.result import Claim, write_result
from vtw_search.config import load_config
from vtw_search.driver import SearchResult, run_search

HERE = Path(__file__).parent
SAMPLES = ("samples.calibration=100", "samples.selection=200", "samples.confirmation=300", "samples.holdout=300")


# Rule -> name of its search and what it overrides.
_RULES = {
    "default limits": ("default",),
    "VTW's rule": ("paper", "limits=vtw_paper"),
    "KL alone": ("kl", "limits.accuracy_drop=null", "limits.confidence=null"),
}


def search(runs: str, name: str, *overrides: str) -> SearchResult:
    """Run, or read from the records of, a search over all tasks."""
    return run_search(load_config(f"runs={runs}", f"search={name}", "tracking=none", *SAMPLES, *overrides))


def main() -> None:
    """Search with the default limits, with VTW's published rule and by KL alone, on the same records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs", help="folder of searches; an interrupted run continues there")
    runs = parser.parse_args().runs
    claims, details = [], {}
    for rule, (name, *overrides) in _RULES.items():
        result = search(runs, f"layer_curves_{name}", *overrides)
        for study in result.studies:
            chosen, holdout = study.chosen.measurement, study.holdout
            claims.append(Claim(f"{study.task}, {rule}: K", chosen.layer, "of 12"))
            claims.append(Claim(f"{study.task}, {rule}: macs", chosen.macs_ratio or 1.0, "of keep-all"))
            claims.append(Claim(f"{study.task}, {rule}: holdout accuracy drop", holdout["accuracy_drop"], ""))
            details[f"{study.task}, {rule}"] = {"verdict": study.verdict, "holdout": dict(holdout)}
        if not overrides:
            (HERE / "results").mkdir(exist_ok=True)
            shutil.copy(result.folder / "report" / "curves.png", HERE / "results" / "curves.png")
            shutil.copy(
                result.folder / "report" / "digits_read" / "front.png", HERE / "results" / "front_digits_read.png"
            )
            depths = {study.chosen.measurement.layer for study in result.studies}
            claims.append(Claim("different depths among the four tasks", len(depths), "", 2.0))
    write_result(HERE, 0, claims, details)


if __name__ == "__main__":
    main()
