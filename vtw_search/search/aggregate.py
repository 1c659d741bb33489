"""From sample records to the numbers of one policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vtw_search.evaluation.statistics import bootstrap_interval, mean_interval, paired_difference_interval
from vtw_search.policies import Policy
from vtw_search.records import KL_COLUMNS, Measurement
from vtw_search.results import Judgement, Row
from vtw_search.search.space import policy_layer


def measurement_of(frame: pd.DataFrame, task: str, policy: Policy, layers: int) -> Measurement:
    """Aggregate a policy's records on calibration and selection; the profile is added by others.

    Args:
        frame: sample records, those of keep-all among them.
        task: the task's name.
        policy: which policy.
        layers: L.
    """
    own = frame[frame["policy"] == policy.digest()]
    layer = policy_layer(policy, layers)
    failures = own.loc[own["failure"].notna(), "failure"]
    if len(failures):
        return Measurement(task=task, policy=policy, layer=layer, failure=failures.iloc[0])
    calibration, selection = (own[own["split"] == split] for split in ("calibration", "selection"))
    reference = frame[frame["policy"] == Policy.keep_all().digest()]
    return Measurement(
        task=task,
        policy=policy,
        layer=layer,
        calibration_samples=len(calibration),
        selection_samples=len(selection),
        **_divergence(calibration),
        **accuracy_of(own, reference),
    )


def accuracy_of(rows: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of a measurement that follow from scores, given a policy's records and those of keep-all."""
    return _accuracy(rows[rows["split"] == "selection"], reference[reference["split"] == "selection"])


def holdout_numbers(frame: pd.DataFrame, policy: Policy) -> dict[str, Any]:
    """Aggregate a policy's records on the holdout; a failed policy has a `failure` instead of numbers."""
    own, reference = (_of_policy(frame, each, "holdout") for each in (policy, Policy.keep_all()))
    failures = own.loc[own["failure"].notna(), "failure"]
    if len(failures) or len(own) != len(reference):
        return {"samples": len(own), "failure": failures.iloc[0] if len(failures) else "not measured on every sample"}
    numbers = {"samples": len(own), "images": int(own["cluster"].nunique()), **_divergence(own), **_intervals(own)}
    return {**numbers, **_accuracy(own, reference), "reference_accuracy": float(reference["score"].mean())}


def with_gap(holdout: Mapping[str, Any], row: Row, judged: Mapping[str, Judgement]) -> dict[str, Any]:
    """Add how much worse the holdout is than what the choice was made by (the winner's curse), where both have numbers.

    Args:
        holdout: as `holdout_numbers` returns it, without failure.
        row: what the choice was made by.
        judged: what the limits on quality say of the holdout. Each gets its value, interval and gap under `limits`: it
            may be about a slice, the tail, or fewer samples than the mean is over.
    """
    names = [*KL_COLUMNS.values(), "accuracy_drop"]
    searched = {name: getattr(row.measurement, name) for name in names}
    gaps = {f"{name}_gap": holdout[name] - value for name, value in searched.items() if value is not None}
    before = {judgement.limit: judgement.value for judgement in row.judgements}
    limits = {
        name: {"value": own.value, "low": own.low, "high": own.high, "gap": own.value - before[name]}
        for name, own in judged.items()
        if name in before
    }
    return {**holdout, **gaps, "limits": limits}


def _of_policy(frame: pd.DataFrame, policy: Policy, split: str) -> pd.DataFrame:
    return frame[(frame["policy"] == policy.digest()) & (frame["split"] == split)]


def _divergence(rows: pd.DataFrame) -> dict[str, Any]:
    means = {column: float(rows[column].mean()) for column in KL_COLUMNS.values()}
    values = rows["kl_answer_nats"]
    low, high = bootstrap_interval(values.to_numpy(dtype=float), rows["cluster"])
    extremes = {"kl_answer_nats_p95": float(values.quantile(0.95)), "kl_answer_nats_max": float(values.max())}
    return {**means, "kl_answer_nats_low": low, "kl_answer_nats_high": high, **extremes}


def _intervals(rows: pd.DataFrame) -> dict[str, float]:
    """Return the 95 % bootstrap interval of every mean divergence."""
    found = {name: bootstrap_interval(rows[name].tolist(), rows["cluster"]) for name in KL_COLUMNS.values()}
    return {f"{name}_{end}": value for name, own in found.items() for end, value in own._asdict().items()}


def _accuracy(rows: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    paired = rows.merge(reference[["sample", "score"]], on="sample", suffixes=("", "_reference"), validate="1:1")
    drops = (paired["score_reference"] - paired["score"]).to_numpy(dtype=float)
    low, high = mean_interval(paired["score"].to_numpy(dtype=float), paired["cluster"])
    drop_low, drop_high = paired_difference_interval(drops, paired["cluster"])
    return {
        "accuracy": float(paired["score"].mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_drop": float(drops.mean()),
        "accuracy_drop_low": drop_low,
        "accuracy_drop_high": drop_high,
        "agreement": float(rows["agreement"].astype(float).mean()),
    }
