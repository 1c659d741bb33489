"""Sample records and rows as a search would have them, made of given KL values and scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from vtw_search.policies import Policy
from vtw_search.records import Measurement, SampleRecord
from vtw_search.results import Judgement, Row

LAYERS = 12


def policy_of(layer: int) -> Policy:
    return Policy.keep_all() if layer == LAYERS else Policy.withdraw(layer)


def records(
    layer: int,
    split: str,
    kl: Sequence[float],
    scores: Sequence[float],
    clusters: Sequence[str] | None = None,
    slices: Sequence[Mapping[str, str]] | None = None,
    failure: str | None = None,
) -> pd.DataFrame:
    """Records of one policy on one split; every KL column holds the same value."""
    rows = [
        SampleRecord(
            policy=policy_of(layer).digest(), split=split, position=number, sample=f"{split}-{number}",
            cluster=clusters[number] if clusters else f"{split}-{number}",
            slices=json.dumps(dict(slices[number]) if slices else {}), answer_tokens=2,
            kl_answer_nats=value, kl_answer_reverse_nats=value, kl_answer_sum_nats=value,
            kl_answer_reverse_sum_nats=value, kl_first_nats=value, kl_first_reverse_nats=value,
            agreement=True, answer="a", score=score, failure=failure,
        )
        for number, (value, score) in enumerate(zip(kl, scores, strict=True))
    ]  # fmt: skip
    return pd.DataFrame([asdict(row) for row in rows])


def row_of(layer: int, macs: int, excess: float = -1.0, **changes: Any) -> Row:
    """A row with one judgement, which holds unless `excess` is above 0."""
    numbers: dict[str, Any] = {
        "accuracy": 0.9, "accuracy_drop": 0.0, "kl_answer_nats": 0.001, "macs": macs, "macs_ratio": macs / 1000,
    }  # fmt: skip
    measurement = Measurement(task="t", policy=policy_of(layer), layer=layer, **(numbers | changes))
    judged = Judgement("kl_nats", 1.0, 1.0 + excess, 0.0, 9.0, f"kl_nats {1 + excess:g} > 1")
    return Row(measurement, (judged,))
