"""Every sampler on a space whose truth is known: `python -m experiments.sampler_quality.run` (resumable)."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from experiments.result import Claim, write_result
from experiments.sampler_quality.drawing import draw
from experiments.sampler_quality.truth import FOLDER, PATH, make_truth_space
from vtw_search.evaluation.model import load_model
from vtw_search.files import write_text_atomically
from vtw_search.policies import Policy
from vtw_search.records import Measurement
from vtw_search.results import Judgement, Row
from vtw_search.search.improvement import Front
from vtw_search.search.proxy import stage_divergences, sweep_of
from vtw_search.search.sampling import DEFAULT_SAMPLER, SamplerSettings, explore
from vtw_search.search.space import Space

RUNS, BATCH, POOL = 20, 16, 1000
KL_NATS, ACCURACY_DROP = 0.1, 0.1
VISUAL = 64


@dataclass(frozen=True)
class Contestant:
    """A sampler as it is run.

    Attributes:
        sampler, pool: as in `conf/sampler`.
        share: of the space that it may measure.
        sweep: whether the sweep over withdrawals is among its seeds.
    """

    sampler: str
    pool: int = 0
    share: float = 0.3
    sweep: bool = True


CONTESTANTS = {
    "default": Contestant(DEFAULT_SAMPLER, POOL, 0.1),
    "random": Contestant("random", share=0.5),
    "random, ordered by the proxy": Contestant("random", POOL, 0.1),
    "random, ordered by the proxy, no layer sweep": Contestant("random", POOL, 0.1, sweep=False),
    "tpe": Contestant("tpe", share=0.1),
    "nsga2": Contestant("nsga2", share=0.2),
    "nsga3": Contestant("nsga3", share=0.2),
    "qmc": Contestant("qmc", share=0.2),
    "gp": Contestant("gp", share=0.1),
}


class Truth:
    """The stored scores as rows, and the front that they have."""

    def __init__(self, frame: pd.DataFrame, layers: int) -> None:
        kept = frame[frame["policy"] == "{}"].iloc[0]
        self.rows = {row.measurement.policy: row for row in (_row(each, kept, layers) for _, each in frame.iterrows())}
        self.reference = int(kept["macs"]), float(kept["accuracy"]) - ACCURACY_DROP
        self.front = Front.of(map(_point, filter(lambda row: row.feasible, self.rows.values())), *self.reference)

    def curve(self, order: Sequence[Policy]) -> list[float]:
        """Return the share of the true hypervolume after each evaluation."""
        front, shares = Front.of([], *self.reference), []
        for policy in order:
            row = self.rows[policy]
            front = front.and_(*_point(row)) if row.feasible else front
            shares.append(front.hypervolume / self.front.hypervolume)
        return shares


def _row(stored: pd.Series, kept: pd.Series, layers: int) -> Row:
    policy = Policy.model_validate_json(stored["policy"])
    drop, kl = kept["accuracy"] - stored["accuracy"], stored["kl_answer_nats"]
    measurement = Measurement(
        task="truth", policy=policy, layer=policy.stages[0].layer if policy.stages else layers,
        kl_answer_nats=kl, accuracy=stored["accuracy"], accuracy_drop=drop, macs=stored["macs"], visual_tokens=VISUAL,
    )  # fmt: skip
    limits = (Judgement("kl_nats", KL_NATS, kl, kl, kl, ""), Judgement("accuracy_drop", ACCURACY_DROP, drop, 0, 0, ""))
    return Row(measurement, limits)


def _point(row: Row) -> tuple[float, float]:
    assert row.measurement.macs is not None
    assert row.measurement.accuracy is not None
    return float(row.measurement.macs), row.measurement.accuracy


def run_one(truth: Truth, space: Space, contestant: Contestant, seed: int) -> list[float]:
    """Run a sampler once; returns the share of the true hypervolume after each evaluation."""
    trials = round(contestant.share * len(truth.rows))
    settings = SamplerSettings(contestant.sampler, trials, BATCH, seed, contestant.pool)
    seeds = space.seeds(trials)
    if not contestant.sweep:
        # Of the withdrawals the recipe's default comes first.
        withdrawals = [policy for policy in seeds if [stage.operator for stage in policy.stages] == ["withdraw"]]
        seeds = [policy for policy in seeds if policy not in withdrawals[1:]]
    return truth.curve(explore(space, settings, seeds, lambda policies: [truth.rows[each] for each in policies]))


def curves_of(name: str, truth: Truth, space: Space, runs: Path) -> list[list[float]]:
    """Run a contestant with every seed, as far as that was not done before."""
    found = []
    for seed in range(RUNS):
        path = runs / f"{name}-{seed}.json"
        if not path.exists():
            began = time.perf_counter()
            curve = run_one(truth, space, CONTESTANTS[name], seed)
            write_text_atomically(path, json.dumps([round(share, 6) for share in curve]))
            print(f"{name} {seed}: {time.perf_counter() - began:.0f} s", flush=True)
        found.append(json.loads(path.read_text()))
    return found


def evaluations_to(curve: Sequence[float], share: float) -> float:
    """Return after how many evaluations a share is reached; infinity if it is not."""
    return next((number for number, reached in enumerate(curve, start=1) if reached >= share), float("inf"))


def value_at(curve: Sequence[float], evaluations: int) -> float:
    """Return the share after so many evaluations, or at the end of a run that stopped before."""
    return curve[min(evaluations, len(curve)) - 1]


def rank_correlation(truth: Truth, layers: int) -> float:
    """Return Spearman's correlation of the additive proxy with the true KL."""
    rows = list(truth.rows.values())
    sweep = sweep_of(rows)
    proxy = [sum(stage_divergences(row.measurement.policy, sweep, layers, VISUAL).values()) for row in rows]
    return float(spearmanr(proxy, [row.measurement.kl_answer_nats for row in rows]).statistic)


def claims_of(curves: Mapping[str, Sequence[Sequence[float]]], truth: Truth, layers: int) -> list[Claim]:
    """Return what the space is like and how the samplers fared, as medians over the runs."""
    tenth = len(truth.rows) // 10
    to_95 = {name: statistics.median(evaluations_to(curve, 0.95) for curve in found) for name, found in curves.items()}
    claims = [
        Claim("policies in the space", len(truth.rows), "", 2000),
        Claim("feasible policies", sum(row.feasible for row in truth.rows.values()), ""),
        Claim("points of the true front", len(truth.front.points), ""),
        Claim("rank correlation of the additive proxy with the KL", rank_correlation(truth, layers), ""),
    ]
    for name, found in curves.items():
        reached = statistics.median(value_at(curve, tenth) for curve in found)
        target = 0.99 if name == "default" else None
        claims.append(Claim(f"{name}: share of the hypervolume after {tenth} evaluations", reached, "", target))
        claims.append(Claim(f"{name}: evaluations to 95 %", to_95[name], ""))
    ratio = to_95["default"] / to_95["random"]
    return [*claims, Claim("default: evaluations to 95 % over random's", ratio, "", 1 / 3, "at most")]


def main(runs: Path, names: Sequence[str]) -> None:
    """Run the contestants, draw and write the claims."""
    facts = load_model("reference", device="cpu").facts
    truth, space = Truth(pd.read_parquet(PATH), facts.num_layers), make_truth_space(facts)
    curves = {name: curves_of(name, truth, space, runs) for name in names}
    draw(curves, len(truth.rows), FOLDER / "results" / "hypervolume.png")
    write_result(FOLDER, 0, claims_of(curves, truth, facts.num_layers))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/sampler_quality")
    main(folder, sys.argv[2:] or list(CONTESTANTS))
