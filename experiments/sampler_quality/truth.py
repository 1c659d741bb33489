"""Every policy of a space, scored by the engine: `python -m experiments.sampler_quality.truth` (resumable)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vtw_search.engine import OnePassEvaluator, batches
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import make_splits
from vtw_search.evaluation.tasks import Sample, load_pools
from vtw_search.facts import ModelFacts
from vtw_search.files import write_atomically
from vtw_search.policies import Policy
from vtw_search.search.profile import Profiler
from vtw_search.search.space import Space, candidates_of, make_space

FOLDER = Path(__file__).parent
PATH = FOLDER / "results" / "truth.parquet"
TASK, OPTIONS, MAX_NEW_TOKENS = "easy_vqa", {"kind": "shape"}, 2
SAMPLES, BATCH, AT_ONCE = 128, 64, 128
LATER = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
# Stages of every kind that acts inside the decoder, two and three of them, and the withdrawals. Defaults come first.
RECIPES: dict[str, dict[str, Any]] = {
    "vtw": {},
    "prune_withdraw": {
        "first": [2, 1, *LATER[1:-1]],
        "keep": [0.5, 0.75, 0.33, 0.25, 0.125, 0.0625],
        "layer": [6, *LATER[:4], *LATER[5:]],
    },
    "himap": {"first": [2, 1, *LATER[1:-1]], "second": [*LATER[1:], 2]},
    "pyramid": {},
    "curve": {},
}


class Agreement(OnePassEvaluator):
    """Takes an answer that is not the reference's for wrong, so that nothing has to be generated.

    The reference is right on every sample of this task, so that what differs is wrong but for other words for the same.
    """

    def _answers(self, agreement: torch.Tensor, rows: Sequence[int]) -> tuple[list[str], torch.Tensor]:
        texts = zip(self.reference.texts, agreement.tolist(), strict=True)
        return [text if same else "" for text, same in texts], agreement


COLUMNS = ["policy", "sample", "kl_answer_nats", "score", "agreement", "failure"]


def make_truth_space(facts: ModelFacts) -> Space:
    """Return the space that the samplers choose from."""
    return make_space(facts, RECIPES, None)


def main(runs: Path) -> None:
    """Score what is missing, shard by shard, and aggregate."""
    loaded = load_model("reference", device="cpu")
    policies = candidates_of(make_truth_space(loaded.facts))
    sizes = {"calibration": 0, "selection": SAMPLES, "confirmation": 0, "holdout": 0}
    samples = make_splits(load_pools(TASK, OPTIONS), 0, sizes)["selection"]
    print(f"{len(policies)} policies on {len(samples)} samples", flush=True)
    shards = [
        shard for start, batch in batches(samples, BATCH) for shard in score(loaded, policies, start, batch, runs)
    ]
    rows = pd.concat([pd.read_parquet(shard) for shard in shards])
    profiler = Profiler(loaded, samples, 0)
    macs = {policy.digest(): profiler.macs(policy).total for policy in policies}
    frame = aggregated(rows, policies, macs)
    write_atomically(PATH, lambda path: frame.to_parquet(path, index=False, compression="zstd"))


def score(
    loaded: LoadedModel, policies: Sequence[Policy], start: int, batch: Sequence[Sample], runs: Path
) -> list[Path]:
    """Score all policies on one batch; returns one file per portion of them."""
    portions = {
        runs / f"{start:04}-{first:05}.parquet": policies[first : first + AT_ONCE]
        for first in range(0, len(policies), AT_ONCE)
    }
    missing = {path: portion for path, portion in portions.items() if not path.exists()}
    if missing:
        evaluator = Agreement(loaded, batch, "selection", start, MAX_NEW_TOKENS)
        for path, portion in missing.items():
            began = time.perf_counter()
            records = [record for found in evaluator.records_of(portion).values() for record in found]
            frame = pd.DataFrame([asdict(record) for record in records])[COLUMNS]
            write_atomically(path, lambda target, frame=frame: frame.to_parquet(target, index=False))
            print(f"{path.stem}: {time.perf_counter() - began:.1f} s", flush=True)
    return list(portions)


def aggregated(rows: pd.DataFrame, policies: Sequence[Policy], macs: dict[str, int]) -> pd.DataFrame:
    """Return one row per policy: its stages as JSON, mean KL, accuracy, agreement and macs."""
    failed = rows[rows["failure"].notna()]
    if len(failed):
        raise RuntimeError(f"{len(failed)} records failed, such as {failed['failure'].iloc[0]}")
    means = rows.groupby("policy").agg(
        kl_answer_nats=("kl_answer_nats", "mean"), accuracy=("score", "mean"), agreement=("agreement", "mean"),
        samples=("sample", "nunique"),
    )  # fmt: skip
    digests = [policy.digest() for policy in policies]
    texts = [json.dumps(policy.model_dump(mode="json", exclude_defaults=True)) for policy in policies]
    found = means.loc[digests].reset_index(drop=True)
    return found.assign(policy=texts, macs=[macs[digest] for digest in digests])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/sampler_quality"))
