"""The same search with racing and without: `python -m experiments.racing.run [folder [task ...]]`."""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch

from experiments.result import Claim, write_result
from vtw_search.config import load_config
from vtw_search.driver import run_search
from vtw_search.engine import OnePassEvaluator
from vtw_search.policies import Policy
from vtw_search.records import KL_COLUMNS
from vtw_search.results import RacingResult, StudyResult
from vtw_search.search.racing import Racing

HERE, TASKS, CALIBRATION = Path(__file__).parent, ("digits_read", "easy_vqa_shape"), 50
SAMPLES = ("batch_size=25", "samples.selection=100", "samples.holdout=100")
LAYERS = list(range(1, 12))
SHARES = [0.75, 0.625, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625, 0.03125]
SCORERS = ["text_to_visual", "text_relevance", "visual_received", "uniform"]
SPACE = (
    f"+space.recipes.prune_withdraw.first={LAYERS[:-1]}", f"+space.recipes.prune_withdraw.layer={LAYERS[1:]}",
    f"+space.recipes.prune_withdraw.keep={SHARES}", f"+space.recipes.prune_withdraw.scorer=[{','.join(SCORERS)}]",
    f"+space.recipes.fastv={{keep: {SHARES}}}", "+space.recipes.vtw={}",
)  # fmt: skip


class Agreement(OnePassEvaluator):
    """Takes an answer that is not the reference's for wrong, so that no answer has to be generated."""

    def _answers(self, agreement: torch.Tensor, rows: Sequence[int]) -> tuple[list[str], torch.Tensor]:
        texts = zip(self.reference.texts, agreement.tolist(), strict=True)
        return [text if same else "" for text, same in texts], agreement


class Certain(Racing):
    """Stops only what no further sample can bring back within its limits, so that no answer depends on it.

    A KL is at least 0: a policy is beyond its limits on all calibration samples if what it has so far would be, with 0
    in place of what is missing.
    """

    def stopped(self, frame: pd.DataFrame) -> dict[str, str]:
        """Return the policies that are beyond a limit on KL whatever follows."""
        limits = {limit.quantity: limit for limit in self.limits.quality(self.slices)}
        rows = frame[frame["split"] == "calibration"]
        values = rows[KL_COLUMNS[self.limits.kl_position, self.limits.kl_direction]]
        over = values > self.limits.cap_nats(limits["tail"])
        means, shares = (each.groupby(rows["policy"]).sum() / CALIBRATION for each in (values, over))
        beyond = (means > limits["kl"].bound) | (shares > limits["tail"].bound)
        return dict.fromkeys(beyond.index[beyond], "beyond a limit whatever follows")


@dataclass(frozen=True)
class Pair:
    """A task's study with racing and the one without."""

    raced: StudyResult
    complete: StudyResult


def search(runs: Path, task: str, racing: type[Racing]) -> StudyResult:
    """Return the study of one search."""
    config = load_config(
        "space=prune_withdraw", *SPACE, f"task={task}", "sampler=enumerate", "profile=macs", "tracking=none",
        "noise.samples=0", f"samples.calibration={CALIBRATION}", *SAMPLES, f"search=racing-{task}", f"runs={runs}",
        "racing.above=0",
    )  # fmt: skip
    with ExitStack() as patches:
        patches.enter_context(mock.patch("vtw_search.search.study.OnePassEvaluator", Agreement))
        patches.enter_context(mock.patch("vtw_search.exploration.Racing", racing))
        # Pictures and trials of thousands of policies take longer than what is asked here.
        patches.enter_context(mock.patch("vtw_search.driver.write_report", return_value=defaultdict(list)))
        patches.enter_context(mock.patch("vtw_search.driver.record_trials"))
        [study] = run_search(config).studies
    return study


def compare(runs: Path, task: str) -> Pair:
    """Search one task with racing, then, on a copy of its records, without."""
    raced, copy = search(runs / task, task, Racing), runs / f"{task}-complete"
    if not copy.exists():
        shutil.copytree(runs / task, copy.with_suffix(".part"), dirs_exist_ok=True).rename(copy)
    return Pair(raced, search(copy, task, Certain))


def answer_of(study: StudyResult) -> tuple[Policy, dict[str, Any], list[str]]:
    """Return the choice, the front with accuracy and macs, and the finalists with their outcomes."""
    front = {
        row.measurement.policy.label(): (row.measurement.accuracy, row.measurement.macs_ratio)
        for row in study.rows
        if row.on_front
    }
    assert study.confirmation is not None
    tested = [f"{each.policy.label()}: {each.outcome}" for each in study.confirmation.finalists]
    return study.chosen.measurement.policy, front, tested


def saving(pair: Pair) -> RacingResult:
    """Return what racing saved."""
    assert pair.raced.racing is not None
    return pair.raced.racing


def claims_of(task: str, pair: Pair, target: float | None) -> list[Claim]:
    """Return the claims of one task; `target` is the share of branch work that has to be saved."""
    saved, rows = saving(pair), pair.complete.rows
    stopped = {row.measurement.policy for row in pair.raced.rows if row.measurement.stopped}
    feasible = {row.measurement.policy for row in rows if row.feasible}
    same = answer_of(pair.raced) == answer_of(pair.complete)
    most_wrong = (1 - saved.confidence) * len(feasible)
    return [
        Claim(f"{task}: policies", len(rows), "", 2000),
        Claim(f"{task}: branch work saved", saved.branch_work_saved, "of the branches' layer-tokens", target),
        Claim(f"{task}: work saved, reference passes included", saved.work_saved, "of all layer-tokens"),
        Claim(f"{task}: same choice, front and finalists", float(same), "", 1),
        Claim(f"{task}: stopped early", len(stopped), f"of {len(rows)}"),
        Claim(f"{task}: within the limits on all samples", len(feasible), "policies"),
        Claim(f"{task}: stopped although within them", len(stopped & feasible), "policies", most_wrong, "at most"),
    ]


def details_of(pair: Pair) -> dict[str, Any]:
    """Return the answer."""
    _, front, tested = answer_of(pair.complete)
    return {"verdict": pair.complete.verdict, "front": front, "finalists": tested}


def main(runs: Path, tasks: Sequence[str]) -> None:
    """Compare on every task; the share is claimed for the first."""
    pairs = {task: compare(runs, task) for task in tasks}
    claims = [
        claim for task, pair in pairs.items() for claim in claims_of(task, pair, 0.3 if task == TASKS[0] else None)
    ]
    write_result(HERE, 0, claims, {task: details_of(pair) for task, pair in pairs.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "runs", sys.argv[2:] or TASKS)
