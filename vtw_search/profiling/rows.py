"""What a policy costs and gains in one regime."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from profilers.memory import PeakMemory
from profilers.prefill import DecodeMacs, PrefillMacs
from profilers.regimes import GainingOutputs, Phases, Regime, Verdict
from profilers.statistics import Interval


@dataclass(frozen=True)
class Side:
    """Reference or candidate in one regime, macs per row.

    Attributes:
        prefill, decode: macs of a prefill, and of the last decode step.
        cache_bytes: of the keys and values at the end of an answer, by formula, all rows.
        cache_bytes_found: the same by looking into the cache; None without a run.
        peak: of memory during one answer; None without a run.
    """

    prefill: PrefillMacs
    decode: DecodeMacs
    cache_bytes: int
    cache_bytes_found: int | None = None
    peak: PeakMemory | None = None


@dataclass(frozen=True)
class RegimeRow:
    """A policy in one regime.

    Attributes:
        regime: the regime.
        status: `measured`, `counted` without times, or why there is no measurement.
        reference, candidate: what both cost.
        left_out: why the vision parts are in no macs and no times, part by part; empty where they are.
        phases: all times.
        speedup, first_token_speedup, decode_speedup: reference / candidate, of the whole answer and of its parts.
        ceiling: the speed-up if everything that the policy touches took no time; of a decode step, whole layers.
        gaining_outputs: for how many output tokens the candidate is faster; None for never.
        verdict: in words; None without times.
        problems: why times should not be relied upon.
    """

    regime: Regime
    status: str
    reference: Side
    candidate: Side
    left_out: tuple[str, ...] = ()
    phases: Phases | None = None
    speedup: Interval | None = None
    first_token_speedup: Interval | None = None
    decode_speedup: Interval | None = None
    ceiling: float | None = None
    gaining_outputs: GainingOutputs | None = None
    verdict: Verdict | None = None
    problems: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether times were asked for and could not be taken, as `status` says."""
        return self.status not in ("measured", "counted")

    @property
    def macs_ratio(self) -> float:
        """Macs of the candidate's prefill over the reference's, without vision parts that are left out."""
        return self.candidate.prefill.total / self.reference.prefill.total

    def as_dict(self) -> dict[str, Any]:
        """The row, ready for JSON; macs with their sums and flops, times with their percentiles by phase and side."""
        content = asdict(self) | {"macs_ratio": self.macs_ratio}
        if self.phases is not None:
            content["percentiles"] = {
                phase: {"reference": reference.as_dict(), "candidate": candidate.as_dict()}
                for phase, (reference, candidate) in self.phases.summaries().items()
            }
        for name in ("reference", "candidate"):
            side: Side = getattr(self, name)
            content[name] |= {"prefill": side.prefill.as_dict()}
            content[name]["decode"] |= {"total": side.decode.total, "flops": side.decode.flops}
        return content
