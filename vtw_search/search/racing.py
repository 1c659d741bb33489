"""Racing: candidates that surely break a limit are not scored on the remaining samples. Pure functions of records.

What is stopped, and after which batch, depends on the records and the limits alone: a search that resumes, or shares
its records with another one, runs the same races again and ends them at the same batch, whatever was measured of a
stopped candidate since. Limits that exclude fewer bring the others back, and they lack samples only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vtw_search.evaluation.sequential import Race
from vtw_search.policies import Policy
from vtw_search.records import KEY, KL_COLUMNS, SampleRecord, frame_of
from vtw_search.search.evidence import in_slice
from vtw_search.search.limits import Limits, QualityLimit


@dataclass(frozen=True)
class Racing:
    """The races that every candidate of a study has to stand.

    A candidate that is within all of its limits is stopped with probability 1 - confidence at most, however often it is
    looked at: each of m limits is raced at confidence 1 - (1 - confidence) / m (Bonferroni), and a race holds its level
    at all looks together. A limit is raced on one value per image, the first that was measured: questions on one image
    are no independent draws. Samples count in the order of their split, which was drawn at random, up to the first that
    is missing.

    Attributes:
        limits: whose bounds on quality are raced.
        confidence: that a stop is right.
        slices: every (name, value) pair that occurs in the samples of the search.
    """

    limits: Limits
    confidence: float
    slices: tuple[tuple[str, str], ...] = ()

    def races(self) -> list[tuple[QualityLimit, Race]]:
        """Return every limit with its race."""
        limits = self.limits.quality(self.slices)
        level = 1 - (1 - self.confidence) / max(1, len(limits))
        return [(limit, self._race(limit, level)) for limit in limits]

    def _race(self, limit: QualityLimit, level: float) -> Race:
        low, high = {"drop": (-1.0, 1.0), "tail": (0.0, 1.0), "kl": (0.0, self.limits.cap_nats(limit))}[limit.quantity]
        return Race(limit.bound, low, high, level)

    def stopped(self, frame: pd.DataFrame) -> dict[str, str]:
        """Return, per digest of a policy that surely breaks limits, which.

        Args:
            frame: sample records, those of keep-all among them.
        """
        column = KL_COLUMNS[self.limits.kl_position, self.limits.kl_direction]
        divergence, scores = _Table.of(frame, "calibration", column), _Table.of(frame, "selection", "score")
        tables = {"kl": divergence.first(self.limits.kl_samples), "drop": scores.below(Policy.keep_all())}
        found: dict[str, list[str]] = {}
        for limit, race in self.races():
            table = tables["drop" if limit.quantity == "drop" else "kl"]
            values = table.draws(limit.slice_)
            if limit.quantity == "tail":
                values = np.where(np.isnan(values), np.nan, values > self.limits.cap_nats(limit))
            for digest in table.values.index[race.stops(values)]:
                found.setdefault(str(digest), []).append(f"{limit.name} surely > {limit.bound:g}")
        return {digest: "; ".join(reasons) for digest, reasons in found.items()}


@dataclass(frozen=True)
class _Table:
    """One column of the records on one split.

    Attributes:
        values: policies in rows, positions in columns from 0 on; NaN where a policy was not measured.
        samples: `cluster` and `slices` per position.
    """

    values: pd.DataFrame
    samples: pd.DataFrame

    @classmethod
    def of(cls, frame: pd.DataFrame, split: str, column: str) -> _Table:
        rows = frame[frame["split"] == split]
        values = rows.pivot(index="policy", columns="position", values=column).astype(float)
        samples = rows.drop_duplicates("position").set_index("position").sort_index()[["cluster", "slices"]]
        # Positions are in order; behind a gap the one at place i is not i any more.
        gapless = np.asarray(values.columns) == np.arange(values.shape[1])
        return cls(values.loc[:, gapless], samples[gapless])

    def first(self, count: int | None) -> _Table:
        return self if count is None else _Table(self.values.iloc[:, :count], self.samples.iloc[:count])

    def below(self, reference: Policy) -> _Table:
        """Return by how much each value is below the reference's."""
        if self.values.empty:
            return self
        return _Table(self.values.rsub(self.values.loc[reference.digest()], axis="columns"), self.samples)

    def draws(self, part: tuple[str, str] | None) -> np.ndarray:
        """Return the first value of every image in a slice, (policies, images)."""
        samples = self.samples if part is None else in_slice(self.samples, part)
        return np.asarray(self.values[samples.drop_duplicates("cluster").index])


class Course:
    """The races of candidates, keep-all among them, over the batches of the search in their order.

    Args:
        racing: None lets every candidate go on.

    Attributes:
        frame: the records of every batch that a candidate was let into, and no others.
    """

    def __init__(self, racing: Racing | None) -> None:
        self.racing, self.frame = racing, frame_of([])

    def going_on(self, policies: Sequence[Policy]) -> list[Policy]:
        """Return the policies that no race has stopped before the next batch."""
        stopped = {} if self.racing is None else self.racing.stopped(self.frame)
        return [policy for policy in policies if policy.digest() not in stopped]

    def tell(self, known: pd.DataFrame, new: Sequence[SampleRecord], let_in: Sequence[Policy]) -> None:
        """Add the records of a batch: of those known before and the new ones, what is of the policies let into it."""
        if self.racing is None:
            return
        own = known[known["policy"].isin([policy.digest() for policy in let_in])]
        frame = pd.concat([self.frame, own, frame_of(new)]).drop_duplicates(KEY)
        # In the order of the store, which intervals by resampling depend on.
        self.frame = frame.sort_values(KEY, ignore_index=True)

    def stopped_early(self, samples: int) -> dict[str, str]:
        """Return, per digest of a policy that was stopped before it had all `samples`, the limits it surely breaks."""
        if self.racing is None:
            return {}
        counts = self.frame["policy"].value_counts()
        return {digest: why for digest, why in self.racing.stopped(self.frame).items() if counts[digest] < samples}


def brought_back(labels: Sequence[str], most: int = 20) -> str:
    """Return the line that names candidates which were stopped before and are needed now, as under looser limits."""
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    named = ", ".join(labels[:most]) + more
    return f"stopped early by racing before, now scored on their missing samples: {len(labels)}, {named}"
