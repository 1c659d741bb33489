"""Fronts of all recipes per task of the reference model, with the baselines among them.

`python -m experiments.policy_spaces.run`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.result import Claim, write_result
from vtw_search.config import load_config
from vtw_search.driver import run_search
from vtw_search.evaluation.model import load_model
from vtw_search.policies import Policy
from vtw_search.recipes import RECIPES
from vtw_search.results import StudyResult
from vtw_search.search.space import make_space

FOLDER = Path(__file__).parent
TASKS = ("easy_vqa_color", "easy_vqa_yesno", "easy_vqa_shape", "digits_read")
TRIALS = 40
# Withdrawals at the layers 1 to 11, which a sampler measures first and which count.
SWEEP = 11
BASELINES = ("random", "downsample")
Point = tuple[float, float]


def search(recipe: str, runs: str, tasks: Sequence[str]) -> dict[str, StudyResult]:
    """Search one recipe's space on the tasks, by multiply-adds alone and without tests; returns results by task.

    Without limits on quality the sampler looks for the whole front, which is what is compared.
    """
    config = load_config(
        f"space={recipe}", f"task=[{','.join(tasks)}]", "sampler=auto", "racing.above=null",
        f"sampler.trials={TRIALS + SWEEP}", f"sampler.enumerate_up_to={TRIALS}",
        "limits.kl_nats=null", "limits.kl_tail=null", "limits.accuracy_drop=null",
        "profile=macs", "tracking=none", "limits.confidence=null", "noise.samples=0", f"runs={runs}",
        f"search=spaces-{recipe}", "samples.calibration=20", "samples.selection=100", "samples.holdout=20",
    )  # fmt: skip
    return {study.task: study for study in run_search(config).studies}


def points_of(study: StudyResult, recipe: str) -> list[tuple[str, float, float]]:
    """Return (label, macs ratio, accuracy) of keep-all and of every policy of the recipe that was measured."""
    facts = load_model("reference", device="cpu").facts
    own = {Policy.keep_all(), *make_space(facts, {recipe: {}}, None).policies()}
    rows = [row.measurement for row in study.rows if row.measurement.failure is None and row.measurement.policy in own]
    return [(row.policy.label(), float(row.macs_ratio or 0), float(row.accuracy or 0)) for row in rows]


def front(points: list[Point]) -> list[Point]:
    """Return the points that no other is at least as cheap and as accurate as, by rising macs."""
    best: list[Point] = []
    for macs, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((macs, accuracy))
    return best


def area(points: list[Point]) -> float:
    """Return the area that a front dominates between macs ratio 0 and 1: the mean accuracy over budgets."""
    total, steps = 0.0, [*front(points), (1.0, 0.0)]
    for (macs, accuracy), (following, _) in pairwise(steps):
        total += (following - macs) * accuracy
    return total


def draw(found: dict[str, dict[str, list[tuple[str, float, float]]]], path: Path) -> None:
    """Draw accuracy against macs, one panel per task and one front per recipe."""
    tasks = list(next(iter(found.values())))
    figure, axes = plt.subplots(-(-len(tasks) // 2), 2, figsize=(13, 5 * -(-len(tasks) // 2)), constrained_layout=True)
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for axis, task in zip(axes.flat, tasks, strict=False):
        for number, (recipe, measured) in enumerate(found.items()):
            points = [(macs, accuracy) for _, macs, accuracy in measured[task]]
            line = front(points)
            style = "--" if recipe in BASELINES else "-"
            axis.step(
                [macs for macs, _ in line], [accuracy for _, accuracy in line], style, where="post", marker="o",
                markersize=3, label=recipe, color="black" if recipe == "random" else colours[number % 20],
                linewidth=2.4 if recipe == "vtw" else 1.3,
            )  # fmt: skip
        axis.set_title(task)
        axis.set_xlabel("multiply-adds of the prefill, of keep-all's")
        axis.set_ylabel("accuracy on the selection split")
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8, ncol=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(runs: str, tasks: Sequence[str]) -> None:
    """Search every recipe, draw, and say on which tasks a recipe's front beats VTW's."""
    found: dict[str, dict[str, list[tuple[str, float, float]]]] = {}
    for recipe in RECIPES:
        found[recipe] = {task: points_of(study, recipe) for task, study in search(recipe, runs, tasks).items()}
    (FOLDER / "results").mkdir(exist_ok=True)
    (FOLDER / "results" / "points.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, FOLDER / "results" / "fronts.png")
    write_result(FOLDER, 0, *claims_of(found))


def claims_of(found: dict[str, dict[str, list[tuple[str, float, float]]]]) -> tuple[list[Claim], dict[str, Any]]:
    """Return one claim per recipe and task, and on how many tasks HiMAP beats VTW."""
    areas = {
        recipe: {task: area([(macs, accuracy) for _, macs, accuracy in points]) for task, points in measured.items()}
        for recipe, measured in found.items()
    }
    tasks = list(areas["vtw"])
    better = sum(areas["himap"][task] > areas["vtw"][task] for task in tasks)
    claims = [Claim("tasks on which HiMAP's space has a better front than VTW's", better, f"of {len(tasks)}", 1)]
    for task in tasks:
        ranked = sorted(areas, key=lambda recipe: -areas[recipe][task])
        claims.append(
            Claim(f"{task}: mean accuracy over budgets of the best recipe, {ranked[0]}", areas[ranked[0]][task], "")
        )
        claims.append(Claim(f"{task}: the same of vtw", areas["vtw"][task], ""))
        claims.append(Claim(f"{task}: the same of random pruning", areas["random"][task], ""))
    return claims, {"areas": areas}


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(FOLDER / "runs"), sys.argv[2:] or TASKS)
