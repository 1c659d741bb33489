"""The same search with racing and without: `python -m experiments.racing.run [folder]`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from experiments.result import Claim, write_result
from vtw_search.config import load_config
from vtw_search.driver import run_search
from vtw_search.results import StudyResult

HERE, TASK = Path(__file__).parent, "easy_vqa_color"
LAYERS = list(range(1, 12))
SHARES = [0.75, 0.625, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625, 0.03125]
SCORERS = ["text_to_visual", "text_relevance", "visual_received", "uniform"]
SPACE = (
    f"+space.recipes.prune_withdraw.first={LAYERS[:-1]}", f"+space.recipes.prune_withdraw.layer={LAYERS[1:]}",
    f"+space.recipes.prune_withdraw.keep={SHARES}", f"+space.recipes.prune_withdraw.scorer=[{','.join(SCORERS)}]",
    f"+space.recipes.fastv={{keep: {SHARES}}}", "+space.recipes.vtw={}",
)  # fmt: skip


def search(runs: str, *overrides: str) -> tuple[StudyResult, float]:
    """Return the study of one search, and how long it took in seconds."""
    config = load_config(
        "space=prune_withdraw", *SPACE, f"task={TASK}", "sampler=enumerate", "profile=macs", "tracking=none",
        "noise.samples=0", "batch_size=25", "samples.calibration=50", "samples.selection=100",
        "samples.holdout=100", "search=racing", f"runs={runs}", *overrides,
    )  # fmt: skip
    began = time.monotonic()
    [study] = run_search(config).studies
    return study, time.monotonic() - began


def front(study: StudyResult) -> dict[str, tuple[float | None, float | None]]:
    """Return accuracy and macs of the front."""
    return {
        row.measurement.policy.label(): (row.measurement.accuracy, row.measurement.macs_ratio)
        for row in study.rows
        if row.on_front
    }


def tested(study: StudyResult) -> list[str]:
    """Return the finalists with their outcomes."""
    assert study.confirmation is not None
    return [f"{each.policy.label()}: {each.outcome}" for each in study.confirmation.finalists]


def main(runs: str) -> None:
    """Search with racing, then without, and compare."""
    raced, raced_s = search(runs, "racing.above=0")
    complete, rest_s = search(runs, "racing.above=null")
    saved = raced.racing
    assert saved is not None
    stopped = {row.measurement.policy for row in raced.rows if row.measurement.stopped}
    feasible = {row.measurement.policy for row in complete.rows if row.feasible}
    same = (raced.chosen.measurement.policy, front(raced), tested(raced)) == (
        complete.chosen.measurement.policy, front(complete), tested(complete),
    )  # fmt: skip
    claims = [
        Claim("policies", len(complete.rows), "", 2000),
        Claim("branch work that racing saved", saved.branch_work_saved, "of all branches' layer-tokens", 0.3),
        Claim("work that racing saved, reference passes included", saved.work_saved, "of all layer-tokens"),
        Claim("same choice, front and tested finalists", float(same), "", 1),
        Claim("stopped early", len(stopped), f"of {len(complete.rows)}"),
        Claim("stopped early although all samples find it within the limits", len(stopped & feasible), "policies",
              (1 - saved.confidence) * max(1, len(feasible)), "at most"),
        Claim("within the limits on all samples", len(feasible), "policies"),
    ]  # fmt: skip
    details = {
        "chosen": complete.chosen.measurement.policy.label(), "verdict": complete.verdict, "front": front(complete),
        "finalists": tested(complete), "seconds": {"with racing": raced_s, "the rest": rest_s},
    }  # fmt: skip
    write_result(HERE, 0, claims, details)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(HERE / "runs"))
