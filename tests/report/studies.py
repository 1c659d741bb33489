"""Studies as a search would hand them over, built without one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from vtw_search.policies import Policy
from vtw_search.records import Measurement
from vtw_search.results import Judgement, Row, StudyResult

LAYERS = 12
FAILED_LAYER = 3
FAILURE = "ModelError: attention <mask> cannot be cropped; use [eager] $attention"
REFERENCE_ACCURACY = 0.914
PREFILL_MACS = 22_137_482_240


def measure(task: str, layer: int, layers: int = LAYERS, middle: float = 4.0, **changes: Any) -> Measurement:
    """Return a measurement on plausible curves: accuracy rises around `middle`, KL falls with the layer."""
    keep_all = layer == layers
    left = 0.0 if keep_all else 1.0 / (1.0 + math.exp(1.6 * (layer - middle)))
    kl = 0.0 if keep_all else 4.2 * math.exp(-0.95 * layer)
    accuracy = round(REFERENCE_ACCURACY - 0.52 * left, 4)
    drop = round(REFERENCE_ACCURACY - accuracy, 4)
    ratio = 0.28 + 0.72 * layer / layers
    values: dict[str, Any] = {
        "task": task, "layer": layer, "policy": Policy.keep_all() if keep_all else Policy.withdraw(layer),
        "calibration_samples": 100, "selection_samples": 300,
        "kl_answer_nats": kl, "kl_answer_nats_low": 0.8 * kl, "kl_answer_nats_high": 1.3 * kl,
        "kl_first_nats": 0.9 * kl, "accuracy": accuracy, "accuracy_low": accuracy - 0.032,
        "accuracy_high": min(1.0, accuracy + 0.03), "accuracy_drop": drop, "accuracy_drop_low": drop - 0.011,
        "accuracy_drop_high": drop + 0.013, "agreement": round(1 - 0.6 * left, 4), "prompt_tokens": 93,
        "visual_tokens": 64, "macs": int(PREFILL_MACS * ratio), "macs_ratio": ratio,
    }  # fmt: skip
    return Measurement(**(values | changes))


def judge(measurement: Measurement, kl_bound: float = 0.01, drop_bound: float = 0.02) -> tuple[Judgement, ...]:
    """Judge KL and accuracy drop as a search does."""
    if measurement.failure is not None:
        return ()
    kl, drop = measurement.kl_answer_nats or 0.0, measurement.accuracy_drop or 0.0
    texts = f"kl_nats {kl:.3g} > {kl_bound:g}", f"accuracy_drop {drop:.3g} > {drop_bound:g}"
    return (
        Judgement("kl_nats", kl_bound, kl, 0.8 * kl, 1.3 * kl, texts[0]),
        Judgement("accuracy_drop", drop_bound, drop, drop - 0.011, drop + 0.013, texts[1]),
    )


def study(
    task: str = "digits_read",
    *,
    kl_bound: float = 0.01,
    middle: float = 4.0,
    layers: int = LAYERS,
    timed: tuple[int, ...] = (7,),
) -> StudyResult:
    """Return a study of every layer, one of them failed; front and choice follow the rules of the design."""
    rows = [_row(task, layer, layers, middle, kl_bound, timed) for layer in (layers, *range(1, layers))]
    feasible = [row for row in rows if row.feasible]
    front = {row.measurement.layer for row in feasible if not any(_beats(other, row) for other in feasible)}
    choice = min(feasible, key=lambda row: row.measurement.macs or 0).measurement.layer
    rows = [
        replace(row, on_front=row.measurement.layer in front, chosen=row.measurement.layer == choice) for row in rows
    ]
    return result_of(task, rows)


def result_of(task: str, rows: list[Row]) -> StudyResult:
    """Return a study that holds these rows."""
    chosen = next(row for row in rows if row.chosen)
    numbers = chosen.measurement
    return StudyResult(
        task=task,
        rows=tuple(rows),
        limits={"kl_nats": 0.01, "kl_position": "answer", "kl_direction": "reference_candidate", "accuracy_drop": 0.02},
        chosen=chosen,
        verdict=f"{numbers.policy.label()} has the lowest macs within the limits: {numbers.macs_ratio:.0%} of keep-all",
        holdout={"accuracy": 0.9066667, "accuracy_drop": 0.0033, "samples": 300},
        identity={"model": "reference", "dtype": "float32"},
        records="records/ab12",
    )


def _row(task: str, layer: int, layers: int, middle: float, kl_bound: float, timed: tuple[int, ...]) -> Row:
    if layer == FAILED_LAYER:
        return Row(Measurement(task=task, policy=Policy.withdraw(layer), layer=layer, failure=FAILURE), ())
    times = {
        "latency_ms": 41.5,
        "reference_latency_ms": 57.2,
        "latency_ratio": 0.725,
        "latency_ratio_low": 0.71,
        "latency_ratio_high": 0.74,
    }
    measurement = measure(task, layer, layers, middle, **(times if layer in timed else {}))
    return Row(measurement, judge(measurement, kl_bound))


def _beats(left: Row, right: Row) -> bool:
    (a, fewer), (b, more) = ((row.measurement.accuracy or 0.0, row.measurement.macs or 0) for row in (left, right))
    return a >= b and fewer <= more and (a > b or fewer < more)


def keep_all_study(task: str = "charts_read") -> StudyResult:
    """Return a study in which only keep-all meets the limits."""
    return study(task, kl_bound=1e-9)
