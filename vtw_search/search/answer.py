"""From measurements and limits to the answer of a study, in one sentence and in numbers. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from vtw_search.errors import StoreError
from vtw_search.policies import Policy
from vtw_search.records import RecordStore
from vtw_search.results import Row
from vtw_search.search.front import least_infeasible, mark_front, preferred
from vtw_search.search.limits import Limits


@dataclass(frozen=True)
class Answer:
    """Judged rows, the chosen one, and a sentence for people."""

    rows: tuple[Row, ...]
    chosen: Row
    verdict: str


def judged_rows(store: RecordStore, candidates: Sequence[Policy], limits: Limits) -> list[Row]:
    """Judge the stored measurements of `candidates`, in their order.

    Raises:
        StoreError: a measurement is missing.
    """
    measurements, frame = store.measurements(), store.samples()
    groups: dict[str, pd.DataFrame] = {str(digest): group for digest, group in frame.groupby("policy")}
    rows = []
    for policy in candidates:
        digest = policy.digest()
        if digest not in measurements:
            remedy = "run the search again; it resumes"
            raise StoreError(f"no measurement of {policy.label()}", value=str(store.folder), remedy=remedy)
        rows.append(Row(measurements[digest], limits.judge(measurements[digest], groups[digest])))
    return rows


def choose(rows: Sequence[Row]) -> Answer:
    """Choose the preferred row; keep-all, which must be the first row, if no other is feasible."""
    keep_all = rows[0]
    withdrawals = mark_front(rows)[1:]
    best = preferred(withdrawals)
    marked = mark_front(rows)
    if best is None:
        chosen = replace(marked[0], chosen=True)
        return Answer((chosen, *marked[1:]), chosen, _nothing_feasible(rows))
    position = next(i for i, row in enumerate(marked) if row.measurement == best.measurement)
    chosen = replace(marked[position], chosen=True)
    marked[position] = chosen
    return Answer(tuple(marked), chosen, _chosen_text(chosen, keep_all))


def keep_all_instead(answer: Answer, reason: str) -> Answer:
    """Return the answer with keep-all chosen, because the choice cannot be used."""
    label = answer.chosen.measurement.policy.label()
    rows = [replace(row, chosen=False) for row in answer.rows]
    rows[0] = replace(rows[0], chosen=True)
    return Answer(tuple(rows), rows[0], f"keep-all: {label} {reason}")


def _chosen_text(chosen: Row, keep_all: Row) -> str:
    measurement = chosen.measurement
    assert measurement.macs_ratio is not None
    assert measurement.accuracy is not None
    saved = f"{1 - measurement.macs_ratio:.0%} fewer macs"
    if measurement.latency_ratio is not None:
        saved += f", {measurement.latency_ratio:.2f} of the prefill time"
    scores = f"accuracy {measurement.accuracy:.3f} against {keep_all.measurement.accuracy:.3f}"
    judged = [judgement.value for judgement in chosen.judgements if judgement.limit == "kl_nats"]
    divergence = f"KL {judged[0] if judged else measurement.kl_answer_nats:.2g} nats"
    return f"{measurement.policy.label()}: {saved}, {scores}, {divergence}; cheapest within the limits"


def _nothing_feasible(rows: Sequence[Row]) -> str:
    closest = least_infeasible(rows[1:])
    if closest is None:
        return "keep-all: no withdrawal could be measured"
    label = closest.measurement.policy.label()
    return f"keep-all: no withdrawal meets the limits; closest is {label}, blocked by {closest.status}"
