"""Accuracy and KL over the withdrawal layer, for all shipped tasks: `python -m experiments.layer_curves.run`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from experiments.result import Claim, write_result
from vtw_search.config import load_config
from vtw_search.driver import run_search

HERE = Path(__file__).parent
# Picture in the report -> its name here.
_PICTURES = {
    "curves.png": "curves.png",
    "digits_read/front.png": "front_digits_read.png",
    "transfer.png": "transfer.png",
}


def main() -> None:
    """Search all tasks with the default limits, and keep the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default="runs", help="folder of searches; an interrupted run continues there")
    overrides = (f"runs={parser.parse_args().runs}", "search=layer_curves", "tracking=none", "profile=macs")
    result = run_search(load_config(*overrides))
    claims, details = [], {}
    for study in result.studies:
        chosen, holdout = study.chosen.measurement, study.holdout
        claims.append(Claim(f"{study.task}: K", chosen.layer, "of 12"))
        claims.append(Claim(f"{study.task}: macs", chosen.macs_ratio or 1.0, "of keep-all"))
        claims.append(Claim(f"{study.task}: holdout accuracy drop", holdout["accuracy_drop"], ""))
        details[study.task] = {"verdict": study.verdict, "holdout": dict(holdout)}
    (HERE / "results").mkdir(exist_ok=True)
    for source, name in _PICTURES.items():
        shutil.copy(result.folder / "report" / source, HERE / "results" / name)
    depths = {study.chosen.measurement.layer for study in result.studies}
    claims.append(Claim("different depths among the four tasks", len(depths), "", 2.0))
    assert result.sharing is not None, "four tasks share a policy"
    if result.sharing.shared is not None:
        total = result.sharing.shared.total
        claims.append(Claim("macs of a policy per task", total.own / total.keep_all, "of keep-all"))
        claims.append(Claim("macs of one policy for all tasks", total.shared / total.keep_all, "of keep-all"))
        claims += [
            Claim(f"{task}: price of sharing", price.lost_ratio, "of keep-all's macs")
            for task, price in result.sharing.shared.prices.items()
        ]
    write_result(HERE, 0, claims, {**details, "sharing": result.sharing.as_dict()})


if __name__ == "__main__":
    main()
