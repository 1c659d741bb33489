"""What each rule chooses when it is given other samples: pure functions of stored rows, without any forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from vtw_search.evaluation.statistics import Interval, paired_difference_interval
from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.results import Row
from vtw_search.search.aggregate import measurement_of
from vtw_search.search.answer import choose, confirmed
from vtw_search.search.confirmation import confirm
from vtw_search.search.judge import judge
from vtw_search.search.limits import Limits

VTW_SAMPLES, KL_SAMPLES = 20, 100
# Samples per split of a drawn default search, as in conf/config.yaml.
SPLITS = {"calibration": 100, "selection": 200, "confirmation": 300}


@dataclass(frozen=True)
class Pool:
    """Rows of every layer K on the same samples, one sample per image.

    Attributes:
        task: its name.
        frame: sample records of keep-all and of every withdrawal.
        samples: the samples by id.
        macs: K -> macs of a prefill, keep-all's at L.
    """

    task: str
    frame: pd.DataFrame
    samples: Mapping[str, Sample]
    macs: Mapping[int, int]

    @cached_property
    def ids(self) -> list[str]:
        """The first sample of every image, in the order of the records."""
        rows = self.frame[self.frame["policy"] == Policy.keep_all().digest()]
        return list(rows.drop_duplicates("cluster")["sample"])

    @property
    def layers(self) -> int:
        """L."""
        return max(self.macs)

    def table(self, column: str) -> np.ndarray:
        """Return (L, samples): the values of K = 1 to L, in the order of `ids`."""
        values = self.frame.pivot(index="policy", columns="sample", values=column)
        names = [policy_of(layer, self.layers).digest() for layer in range(1, self.layers + 1)]
        return values.loc[names, self.ids].to_numpy(dtype=float)


def policy_of(layer: int, layers: int) -> Policy:
    """Return the withdrawal at K; keep-all at K = L."""
    return Policy.keep_all() if layer == layers else Policy.withdraw(layer)


def first_within(kl: np.ndarray, eta: float, first: int) -> int:
    """Return the first K from `first` on whose mean KL is at most eta; (L, samples) values of K = 1 to L."""
    means = kl.mean(axis=1)
    found = [layer for layer in range(first, len(means) + 1) if means[layer - 1] <= eta]
    return min(found, default=len(means))


def draw(pool: Pool, number: int, count: int) -> np.ndarray:
    """Return the places of `count` samples of a pool; one number gives one draw, a longer one begins like it."""
    return np.random.default_rng([20261126, number]).permutation(len(pool.ids))[:count]


def choices(pool: Pool, column: str, count: int, eta: float, first: int, draws: int) -> list[int]:
    """Return the K that a rule on the mean of one KL column chooses, draw by draw."""
    kl = pool.table(column)
    return [first_within(kl[:, draw(pool, number, count)], eta, first) for number in range(draws)]


def default_choices(pool: Pool, limits: Sequence[Limits], draws: int) -> Iterator[list[int]]:
    """Yield, per draw, the K that the default search exports under each of the limits."""
    for number in range(draws):
        drawn = _Drawn(pool, draw(pool, number, sum(SPLITS.values())))
        yield [drawn.choice(each) for each in limits]


class _Drawn:
    """A default search on drawn samples: its records with their splits, and its measurements."""

    def __init__(self, pool: Pool, places: np.ndarray) -> None:
        ids = [pool.ids[place] for place in places]
        splits = [split for split, count in SPLITS.items() for _ in range(count)]
        order = pd.DataFrame({"sample": ids, "split": splits, "position": range(len(ids))})
        rows = pool.frame.drop(columns=["split", "position"]).merge(order, on="sample", validate="many_to_one")
        self.tested = rows[rows["split"] == "confirmation"]
        self.frame = rows[rows["split"] != "confirmation"]
        self.samples = [pool.samples[name] for name, split in zip(ids, splits, strict=True) if split == "confirmation"]
        self.groups = {str(digest): group for digest, group in self.frame.groupby("policy")}
        full = pool.macs[pool.layers]
        self.measured = [
            measurement_of(self.frame, pool.task, policy_of(layer, pool.layers), pool.layers).model_copy(
                update={"macs": macs, "macs_ratio": macs / full}
            )
            for layer, macs in sorted(pool.macs.items(), reverse=True)
        ]

    def choice(self, limits: Limits) -> int:
        kept = self.groups[Policy.keep_all().digest()]
        rows = [Row(own, judge(limits, own, self.groups[own.policy.digest()], kept)) for own in self.measured]
        answer = choose(rows)
        found = confirm(answer.rows, self.frame, limits, self.samples, lambda _: self.tested, lambda _: 1)
        return confirmed(answer, found).chosen.measurement.layer


@dataclass(frozen=True)
class Truth:
    """The accuracy drop of every K on the holdout: `drops` and `intervals` (95 %) of K = 1 to L."""

    drops: tuple[float, ...]
    intervals: tuple[Interval, ...]

    def breaks(self, layer: int, limit: float) -> bool:
        """Whether K loses more than the limit on the holdout."""
        return self.drops[layer - 1] > limit

    def surely_breaks(self, layer: int, limit: float) -> bool:
        """Whether the whole interval is above the limit."""
        return self.intervals[layer - 1].low > limit


def truth_of(frame: pd.DataFrame, layers: int) -> Truth:
    """Return the drops on the holdout, all samples of an image together."""
    scores = {str(digest): rows.set_index("sample") for digest, rows in frame.groupby("policy")}
    kept = scores[Policy.keep_all().digest()]
    found = []
    for layer in range(1, layers + 1):
        own = scores[policy_of(layer, layers).digest()].loc[kept.index]
        found.append((kept["score"] - own["score"]).astype(float).tolist())
    clusters = kept["cluster"].tolist()
    intervals = tuple(paired_difference_interval(drops, clusters) for drops in found)
    return Truth(tuple(sum(drops) / len(drops) for drops in found), intervals)
