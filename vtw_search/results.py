"""What a study found: its measurements with the judgement of the limits. Read by reports and trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtw_search.records import Measurement


@dataclass(frozen=True)
class Judgement:
    """One limit on one measurement.

    Attributes:
        limit: what is bounded, for example `kl_nats` or `accuracy_drop`.
        bound: the largest value that is allowed.
        value: the point estimate.
        low, high: its 95 % interval, shown but not judged.
        text: the same for people, such as `kl_nats 0.0312 > 0.01`.
    """

    limit: str
    bound: float
    value: float
    low: float
    high: float
    text: str

    @property
    def excess(self) -> float:
        """Value minus bound; the limit holds when this is at most 0."""
        return self.value - self.bound

    @property
    def holds(self) -> bool:
        """Whether the point estimate is within the bound."""
        return self.excess <= 0


@dataclass(frozen=True)
class Row:
    """A measurement and what the limits say of it.

    Attributes:
        measurement: the numbers.
        judgements: one per limit; empty for a measurement that failed.
        on_front: feasible, and no other feasible row is at least as good in accuracy and macs and better in one.
        chosen: this is the study's answer.
    """

    measurement: Measurement
    judgements: tuple[Judgement, ...]
    on_front: bool = False
    chosen: bool = False

    @property
    def feasible(self) -> bool:
        """Whether every limit holds; a failed measurement is never feasible."""
        return self.measurement.failure is None and all(judgement.holds for judgement in self.judgements)

    @property
    def status(self) -> str:
        """`feasible`, the limits that failed, or why there are no numbers."""
        if self.measurement.failure is not None:
            return f"failed: {self.measurement.failure}"
        return "; ".join(judgement.text for judgement in self.judgements if not judgement.holds) or "feasible"


@dataclass(frozen=True)
class StudyResult:
    """One task of a search.

    Attributes:
        task: its name.
        rows: keep-all first, then by rising K.
        limits: what was asked for, as in the policy file.
        chosen: the row of the policy that is exported.
        verdict: one sentence that says what was chosen and why.
        holdout: the chosen policy's numbers on the holdout split, with sample counts; empty if it was not run.
        identity: the settings that identify the measurements.
        records: folder of the copied records.
    """

    task: str
    rows: tuple[Row, ...]
    limits: Mapping[str, Any]
    chosen: Row
    verdict: str
    holdout: Mapping[str, Any]
    identity: Mapping[str, Any]
    records: str
