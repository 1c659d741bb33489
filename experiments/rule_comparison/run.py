"""VTW's published rule, a search by KL alone and the default search, on every task, held against the holdout.

`python -m experiments.rule_comparison.run`
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.result import Claim, write_result
from experiments.rule_comparison.draws import (
    KL_SAMPLES,
    VTW_SAMPLES,
    Pool,
    Truth,
    choices,
    default_choices,
    policy_of,
    truth_of,
)  # fmt: skip
from experiments.rule_comparison.picture import draw_comparison
from vtw_search.config import load_config
from vtw_search.driver import SearchResult, run_search
from vtw_search.engine import OnePassEvaluator, batches
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import make_splits
from vtw_search.evaluation.tasks import Sample, load_pools
from vtw_search.files import write_text_atomically
from vtw_search.records import RecordStore
from vtw_search.results import StudyResult
from vtw_search.search.limits import Limits, limits_for_task
from vtw_search.search.scoring import Scoring
from vtw_search.settings import SearchConfig, TaskSettings

HERE = Path(__file__).parent
# Rule -> name of its search, what it overrides.
RULES = {
    "default": ("default",),
    "VTW's rule": ("vtw", "limits=vtw_paper"),
    "KL alone": ("kl", "limits.accuracy_drop=null", "limits.confidence=null"),
}
ETAS = (0.001, 0.003, 0.01, 0.03, 0.1)
PUBLISHED_ETA, PUBLISHED_FIRST = 0.003, 5
POOL, HOLDOUT = 320, 400  # samples per search split that draws are made from, and of the holdout


@dataclass(frozen=True)
class Drawn:
    """What a rule chooses on drawn samples.

    Attributes:
        rule: its name.
        eta: its limit on KL.
        layers: K, draw by draw.
        broken: share of the draws whose K loses more than the limit on the holdout.
        surely: the same where the whole 95 % interval is above the limit.
        macs: mean macs of the choices, of keep-all's.
    """

    rule: str
    eta: float
    layers: tuple[int, ...]
    broken: float
    surely: float
    macs: float


def search(runs: str, name: str, *overrides: str) -> SearchResult:
    """Run, or read from the records of, a search over all tasks."""
    fixed = ("tracking=none", "profile=macs", "noise.samples=0")
    return run_search(load_config(f"runs={runs}", f"search=rule_comparison_{name}", *fixed, *overrides))


def scored(
    store: RecordStore, loaded: LoadedModel, samples: Sequence[Sample], task: TaskSettings, size: int
) -> pd.DataFrame:
    """Return the rows of every K on samples, in batches of `size`; those that are in the store are not scored again."""
    layers = loaded.facts.num_layers
    policies = [policy_of(layer, layers) for layer in range(layers, 0, -1)]
    known = set(store.samples()["sample"])
    for start, batch in batches(samples, size):
        if not {sample.id for sample in batch} <= known:
            found = OnePassEvaluator(loaded, batch, "pool", start, task.max_new_tokens).records_of(policies)
            store.add_samples([record for rows in found.values() for record in rows])
    return Scoring(samples).scored(store.samples())


def measured(config: SearchConfig, loaded: LoadedModel, study: StudyResult, folder: Path) -> tuple[Pool, Truth]:
    """Return the pool that draws are made from, and what is true on the holdout."""
    task = config.named_tasks[study.task]
    sizes = {"calibration": POOL, "selection": POOL, "confirmation": 0, "holdout": HOLDOUT}
    splits = make_splits(load_pools(task.source, task.options), config.seed, sizes)
    pool = [*splits["calibration"], *splits["selection"]]
    identity = {**loaded.identity, "task": study.task, "rows": "every K"}
    frames = []
    for samples in (pool, splits["holdout"]):
        digest = hashlib.sha256("".join(sample.digest() for sample in samples).encode()).hexdigest()
        store = RecordStore.of_identity(folder, {**identity, "samples": digest}, {})
        frames.append(scored(store, loaded, samples, task, config.batch_size))
    macs = {row.measurement.layer: int(row.measurement.macs or 0) for row in study.rows}
    return (
        Pool(study.task, frames[0], {sample.id: sample for sample in pool}, macs),
        truth_of(frames[1], loaded.facts.num_layers),
    )


def limits_of(config: SearchConfig, task: str) -> Limits:
    """Return the default limits of a task."""
    asked = config.limits.model_dump(exclude={"per_task"})
    return limits_for_task(asked, config.named_tasks[task].limits.model_dump(), {})


def drawn(pool: Pool, truth: Truth, limits: Limits, draws: int) -> list[Drawn]:
    """Let every rule choose on drawn samples, for a range of limits on KL."""
    assert limits.accuracy_drop is not None
    found: list[tuple[str, float, list[int]]] = []
    for eta in ETAS:
        published = ("kl_first_reverse_nats", VTW_SAMPLES, eta)
        found.append(("VTW's rule", eta, choices(pool, *published, PUBLISHED_FIRST, draws)))
        found.append(("VTW's rule from K = 1", eta, choices(pool, *published, 1, draws)))
        found.append(("KL alone", eta, choices(pool, "kl_answer_nats", KL_SAMPLES, eta, 1, draws)))
    under = [replace(limits, kl_nats=eta) for eta in ETAS]
    searched = list(zip(*default_choices(pool, under, draws), strict=True))
    found += [("default", eta, list(layers)) for eta, layers in zip(ETAS, searched, strict=True)]
    return [_outcome(pool, truth, limits.accuracy_drop, *each) for each in found]


def _outcome(pool: Pool, truth: Truth, limit: float, rule: str, eta: float, layers: list[int]) -> Drawn:
    full, count = pool.macs[pool.layers], len(layers)
    broken = sum(truth.breaks(layer, limit) for layer in layers) / count
    surely = sum(truth.surely_breaks(layer, limit) for layer in layers) / count
    return Drawn(rule, eta, tuple(layers), broken, surely, sum(pool.macs[layer] for layer in layers) / count / full)


def table(results: dict[str, SearchResult], truths: dict[str, Truth], config: SearchConfig) -> str:
    """Return what each rule chose in one search and what it loses on the whole holdout, as Markdown."""
    lines = ["| task | limit on the drop | " + " | ".join(f"{rule}: K, macs, drop" for rule in results) + " |"]
    lines.append("| --- " * (2 + len(results)) + "|")
    for place, task in enumerate(truths):
        limit = limits_of(config, task).accuracy_drop
        cells = [_cell(result.studies[place], truths[task]) for result in results.values()]
        lines.append(f"| `{task}` | {limit} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(study: StudyResult, truth: Truth) -> str:
    own = study.chosen.measurement
    drop, (low, high) = truth.drops[own.layer - 1], truth.intervals[own.layer - 1]
    return f"{own.layer}, {own.macs_ratio:.0%}, {drop:.3f} ({low:.3f} to {high:.3f})"


def draws_table(outcomes: dict[str, list[Drawn]]) -> str:
    """Return how often each rule's K breaks the limit, as Markdown."""
    lines = ["| task | rule | " + " | ".join(f"eta {eta:g}" for eta in ETAS) + " |"]
    lines.append("| --- " * (2 + len(ETAS)) + "|")
    for task, found in outcomes.items():
        for rule in dict.fromkeys(each.rule for each in found):
            cells = [f"{each.broken:.0%}, macs {each.macs:.0%}" for each in found if each.rule == rule]
            lines.append(f"| `{task}` | {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def claims_of(
    results: dict[str, SearchResult], truths: dict[str, Truth], outcomes: dict[str, list[Drawn]], config: SearchConfig
) -> list[Claim]:
    """Return the drops on the holdout against the limits, and how often draws break them."""
    claims = []
    for rule, result in results.items():
        for study in result.studies:
            layer, limit = study.chosen.measurement.layer, limits_of(config, study.task).accuracy_drop
            drop = truths[study.task].drops[layer - 1]
            claims.append(Claim(f"{study.task}, {rule}: K", layer, "of 12"))
            claims.append(Claim(f"{study.task}, {rule}: holdout accuracy drop", drop, "", limit, "at most"))
    asked = {"VTW's rule": PUBLISHED_ETA, "VTW's rule from K = 1": PUBLISHED_ETA, "KL alone": 0.01, "default": 0.01}
    for task, found in outcomes.items():
        for each in found:
            if each.eta == asked[each.rule]:
                target = 0.05 if each.rule == "default" else None
                name = f"{task}, {each.rule}, KL at most {each.eta:g}: draws whose K breaks the limit"
                claims.append(Claim(name, each.broken, "of all draws", target, "at most"))
    return claims


def main(arguments: Sequence[str] | None = None) -> None:
    """Search by each rule, let the rules choose on drawn samples, and compare with the holdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", default="runs", help="folder of searches and rows; an interrupted run continues there"
    )
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args(arguments)
    config = load_config()
    results = {rule: search(asked.runs, name, *overrides) for rule, (name, *overrides) in RULES.items()}
    loaded, folder = load_model(config.model.path, device="cpu"), Path(asked.runs) / "rule_comparison_rows"
    truths: dict[str, Truth] = {}
    outcomes: dict[str, list[Drawn]] = {}
    for study in results["default"].studies:
        pool, truths[study.task] = measured(config, loaded, study, folder)
        outcomes[study.task] = drawn(pool, truths[study.task], limits_of(config, study.task), asked.draws)
    text = table(results, truths, config) + "\n" + draws_table(outcomes)
    write_text_atomically(asked.out / "results" / "table.md", text)
    bounds = {task: limits_of(config, task).accuracy_drop or 0.0 for task in truths}
    chosen = {
        rule: {study.task: study.chosen.measurement.layer for study in result.studies}
        for rule, result in results.items()
    }
    draw_comparison(truths, outcomes, bounds, chosen, asked.out / "results" / "rules.png")
    details: dict[str, Any] = {
        "drops_on_the_holdout": {task: asdict(truth) for task, truth in truths.items()},
        "draws": {task: [asdict(each) for each in found] for task, found in outcomes.items()},
        "verdicts": {rule: {study.task: study.verdict for study in result.studies} for rule, result in results.items()},
    }
    write_result(asked.out, config.seed, claims_of(results, truths, outcomes, config), details)


if __name__ == "__main__":
    main()
