"""A plausible result of a search over a model with `LAYERS` decoder layers, without a model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from vtw_search.policies import Policy
from vtw_search.records import Measurement
from vtw_search.results import Judgement, Row, StudyResult
from vtw_search.transfer import Price, SharedPolicy, Sharing

KL_LIMIT, DROP_LIMIT = 0.05, 0.02


def make_measurement(task: str, layer: int, layers: int, needs: float) -> Measurement:
    """Return a candidate whose divergence falls quickly once it sees the image up to layer `needs`."""
    keep_all = layer == layers
    kl = 0.0 if keep_all else 4.0 / (1.0 + math.exp(3.0 * (layer - needs)))
    drop = 0.0 if keep_all else round(0.6 / (1.0 + math.exp(2.5 * (layer - needs + 1))), 3)
    ratio = (0.2 + 0.8 * layer / layers) if not keep_all else 1.0
    latency = 50.0 * (0.3 + 0.7 * ratio)
    return Measurement(
        task=task, policy=Policy() if keep_all else Policy.withdraw(layer), layer=layer,
        calibration_samples=200, selection_samples=300,
        kl_answer_nats=kl, kl_answer_nats_low=kl * 0.8, kl_answer_nats_high=kl * 1.2, kl_first_nats=kl * 1.1,
        accuracy=0.95 - drop, accuracy_low=0.93 - drop, accuracy_high=0.97 - drop,
        accuracy_drop=drop, accuracy_drop_low=drop - 0.01, accuracy_drop_high=drop + 0.01, agreement=1.0 - drop,
        prompt_tokens=630, visual_tokens=576, macs=int(4e12 * ratio), macs_ratio=ratio,
        latency_ms=latency, reference_latency_ms=50.0, latency_ratio=latency / 50.0, latency_ratio_low=latency / 52.0,
        latency_ratio_high=latency / 48.0, latency_repeats=20,
    )  # fmt: skip


def make_row(measurement: Measurement) -> Row:
    """Judge a measurement by the two limits."""
    kl, drop = measurement.kl_answer_nats, measurement.accuracy_drop
    assert kl is not None
    assert drop is not None
    return Row(measurement, (_judge("kl_nats", kl, KL_LIMIT), _judge("accuracy_drop", drop, DROP_LIMIT)))


def _judge(limit: str, value: float, bound: float) -> Judgement:
    sign = "<=" if value <= bound else ">"
    return Judgement(limit, bound, value, value * 0.8, value * 1.2, f"{limit} {value:.4f} {sign} {bound}")


def make_study(
    task: str = "digits_read", layers: int = 8, needs: float = 3.0, failed: int | None = None
) -> StudyResult:
    """Return a study of every K; the cheapest feasible one is chosen and on the front, with keep-all and a third."""
    order = [layers, *range(1, layers)]
    rows = [make_row(make_measurement(task, layer, layers, needs)) for layer in order]
    if failed is not None:
        policy = Policy.withdraw(failed)
        rows[failed] = Row(Measurement(task=task, policy=policy, layer=failed, failure="logits are NaN"), ())
    chosen = next((row for row in rows[1:] if row.feasible), rows[0])
    front = {chosen.measurement.layer, min(chosen.measurement.layer + 2, layers)}
    marked = tuple(
        replace(row, on_front=row.measurement.layer in front, chosen=row is chosen) if row.feasible else row
        for row in rows
    )
    answer = next(row for row in marked if row.chosen)
    ratio = answer.measurement.macs_ratio
    return StudyResult(
        task=task,
        rows=marked,
        limits={"kl_nats": {"bound": KL_LIMIT, "positions": "answer"}, "accuracy_drop": DROP_LIMIT},
        chosen=answer,
        verdict=f"{answer.measurement.policy.label()} is the cheapest within all limits ({ratio:.0%} of macs)",
        holdout={"accuracy": 0.9433, "accuracy_drop": 0.004, "samples": 300, "images": 300},
        identity={"model": "reference", "dtype": "float32", "scoring": {"withdraw": 1}},
        records="records/abc",
    )


def make_artifacts(folder: Path) -> list[Path]:
    """Write what a study hands over: a table, a page, a picture, and a folder with records."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    (folder / "records" / "measurements.jsonl").write_text("{}\n")
    (folder / "front.csv").write_text("policy,accuracy,macs_ratio\nwithdraw@4,0.95,0.6\n")
    (folder / "front.html").write_text("<html><body><h1>Front</h1></body></html>")
    return [folder / "front.csv", folder / "front.html", folder / "records"]


def make_sharing(left: str = "a", right: str = "b|c") -> Sharing:
    """Return two tasks of which the second needs two more layers, and the policy that they share."""
    needs = {left: 3.0, right: 5.0}
    rows = {
        layer: {task: make_row(make_measurement(task, layer, 8, need)) for task, need in needs.items()}
        for layer in (5, 7)
    }
    prices = {left: Price(100, 140, 200), right: Price(140, 140, 200)}
    shared = SharedPolicy(Policy.withdraw(7), rows[7], prices, {}, {})
    return Sharing({left: rows[5], right: rows[7]}, "one policy for all 2 tasks: withdraw@7", shared)
