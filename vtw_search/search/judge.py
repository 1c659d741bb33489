"""What limits say of the point estimates of a measurement. Pure functions of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from vtw_search.errors import ConfigError, EvidenceError, unknown_name
from vtw_search.evaluation.statistics import Interval, bootstrap_interval, mean_interval, paired_difference_interval
from vtw_search.records import Measurement
from vtw_search.results import Judgement
from vtw_search.search.evidence import Evidence, evidence_of, slices_of
from vtw_search.search.limits import Limits, QualityLimit

# Columns of a measurement that are costs, so that a limit on them makes sense: told by what their name says.
_UNITS = ("macs", "latency", "bytes", "cache", "tokens")
_NO_COSTS = ("latency_repeats", "latency_problems")
COSTS = tuple(
    name for name in Measurement.model_fields if any(unit in name for unit in _UNITS) and name not in _NO_COSTS
)


def judge(
    limits: Limits, measurement: Measurement, samples: pd.DataFrame, reference: pd.DataFrame
) -> tuple[Judgement, ...]:
    """Judge one measurement: by nothing if it failed, by quality alone if it was stopped early.

    Args:
        limits: what is asked for.
        measurement: of one policy.
        samples, reference: the sample records of that policy and of keep-all, on calibration and selection.

    Raises:
        EvidenceError: a value is missing or not a number.
        ConfigError: a cost is limited that was not measured.
    """
    if measurement.failure is not None:
        return ()
    if measurement.stopped is not None:
        return tuple(_judge_stopped(limits, samples, reference))
    evidence = evidence_of(samples, reference, limits, "calibration", "selection", binary=False)
    quality = (_judge_quality(limit, limits, evidence) for limit in limits.quality(evidence.slices()))
    return (*_judge_layer(limits, measurement), *quality, *judge_costs(limits, measurement))


def _judge_stopped(limits: Limits, samples: pd.DataFrame, reference: pd.DataFrame) -> Iterator[Judgement]:
    """Judge what there is of a candidate; slices that it did not get to are left out."""
    there = reference.merge(samples[["split", "sample"]], validate="1:1")
    evidence = evidence_of(samples, there, limits, "calibration", "selection", binary=False)
    return _judge_what_is_there(limits, evidence, slices_of(reference["slices"]))


def judge_holdout(
    limits: Limits, samples: pd.DataFrame, reference: pd.DataFrame, slices: Sequence[tuple[str, str]]
) -> dict[str, Judgement]:
    """Return what the limits on quality say of the holdout, by name; slices that it lacks are left out.

    Args:
        limits: what is asked for.
        samples, reference: the sample records of a policy and of keep-all, on the holdout.
        slices: the (name, value) pairs that the search was judged on.
    """
    evidence = evidence_of(samples, reference, limits, "holdout", "holdout", binary=False)
    return {judged.limit: judged for judged in _judge_what_is_there(limits, evidence, slices)}


def _judge_what_is_there(limits: Limits, evidence: Evidence, slices: Sequence[tuple[str, str]]) -> Iterator[Judgement]:
    for limit in limits.quality(slices):
        part = evidence.of_slice(limit.slice_)
        if len(part.drops if limit.quantity == "drop" else part.kl):
            yield _judge_quality(limit, limits, evidence)


def _judge_layer(limits: Limits, measurement: Measurement) -> list[Judgement]:
    if limits.first_layer is None:
        return []
    missing = float(limits.first_layer - measurement.layer)
    text = f"layer {measurement.layer} < {limits.first_layer}"
    return [Judgement("first_layer", 0.0, missing, missing, missing, text)]


def _judge_quality(limit: QualityLimit, limits: Limits, evidence: Evidence) -> Judgement:
    value, (low, high) = _estimate(limit, limits, evidence.of_slice(limit.slice_))
    return Judgement(limit.name, limit.bound, value, low, high, f"{limit.name} {value:.3g} > {limit.bound:g}")


def _estimate(limit: QualityLimit, limits: Limits, evidence: Evidence) -> tuple[float, Interval]:
    rows = evidence.drops if limit.quantity == "drop" else evidence.kl
    values, clusters = rows["value"].to_numpy(dtype=float), rows["cluster"].tolist()
    if not len(values) or pd.isna(values).any():
        remedy = "a limit is never judged on what was not measured; use more samples"
        raise EvidenceError(f"{limit.name} must have values on the search's samples", value=len(values), remedy=remedy)
    if limit.quantity == "drop":
        return float(values.mean()), paired_difference_interval(values.tolist(), clusters)
    if limit.quantity == "kl":
        return float(values.mean()), bootstrap_interval(values.tolist(), clusters)
    over = (values > limits.cap_nats(limit)).astype(float)
    return float(over.mean()), mean_interval(over.tolist(), clusters)


def judge_costs(limits: Limits, measurement: Measurement) -> list[Judgement]:
    """Judge the limits on time and work, which are judged on what was measured once; not on times that `untimed` names.

    Raises:
        ConfigError: a cost is limited that was not measured, or is none.
    """
    judged = limits if untimed(limits, measurement) is None else limits.without_time()
    return [_judge_cost(name, bound, measurement) for name, bound in judged.at_most.items()]


def untimed(limits: Limits, measurement: Measurement) -> str | None:
    """Return why times that limits or the objective need could not be taken; None where nothing is missing."""
    missing = limits.need_time and measurement.complete and measurement.latency_ms is None
    return measurement.latency_problems if missing else None


def check_costs(limits: Limits, timed: bool) -> None:
    """Check the names in `limits.at_most` before anything is measured.

    Raises:
        UnknownNameError: there is no such cost.
        ConfigError: time is limited or preferred, and nothing will be timed.
    """
    for name in limits.at_most:
        if name not in COSTS:
            raise unknown_name("cost in limits.at_most", name, COSTS)
    if limits.need_time and not timed:
        rule = "a limit on time, or a choice by it, needs timed prefills"
        raise ConfigError(rule, value="0 repeats", remedy="use profile=time")


def _judge_cost(name: str, bound: float, measurement: Measurement) -> Judgement:
    value = cost(name, measurement)
    return Judgement(name, bound, value, value, value, f"{name} {value:.4g} > {bound:g}")


def cost(name: str, measurement: Measurement) -> float:
    """Return a cost of a measurement.

    Raises:
        UnknownNameError: there is no such cost.
        ConfigError: it was not measured.
    """
    if name not in COSTS:
        raise unknown_name("cost", name, COSTS)
    value = getattr(measurement, name)
    if value is None:
        raise ConfigError(f"{name} was not measured", value=measurement.policy.label(), remedy="use profile=time")
    return float(value)
