"""Feasible rows, their front, and the preferred one. Pure functions of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vtw_search.records import KL_COLUMNS, Measurement
from vtw_search.results import Row
from vtw_search.search.objective import DEFAULT, Objective


def mark_front(rows: Sequence[Row]) -> list[Row]:
    """Mark the feasible rows that no other feasible row dominates in accuracy and macs."""
    feasible = [row for row in rows if row.feasible]
    return [
        replace(row, on_front=row.feasible and not any(_dominates(other, row) for other in feasible)) for row in rows
    ]


def worth_timing(measurements: Sequence[Measurement]) -> set[str]:
    """Return digests of keep-all and of all policies that no other one beats in macs, accuracy and every KL.

    Whatever the limits are, the front they leave is among these: a policy that beats another one in all of them is
    feasible wherever the other one is.
    """
    costs = {row.policy.digest(): _costs(row) for row in measurements if row.complete and row.macs is not None}
    keep_all = {row.policy.digest() for row in measurements if row.policy.is_keep_all}
    return keep_all | {name for name, own in costs.items() if not any(_beats(each, own) for each in costs.values())}


def _costs(row: Measurement) -> tuple[float, ...]:
    kls = (getattr(row, name) for name in KL_COLUMNS.values())
    accuracy = 0.0 if row.accuracy is None else row.accuracy
    return (float(row.macs or 0), -accuracy, *(float("inf") if kl is None else float(kl) for kl in kls))


def _beats(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    return left != right and all(x <= y for x, y in zip(left, right, strict=True))


def _dominates(left: Row, right: Row) -> bool:
    """Whether `left` is at least as good in both objectives and better in one."""
    a, b = _objectives(left), _objectives(right)
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def _objectives(row: Row) -> tuple[float, float]:
    measurement = row.measurement
    assert measurement.accuracy is not None
    assert measurement.macs is not None
    return -measurement.accuracy, float(measurement.macs)


def preferred(rows: Sequence[Row], objective: Objective = DEFAULT) -> Row | None:
    """Return the feasible row that the objective prefers; None if there is none.

    Ties: the lowest macs, then higher accuracy, lower KL, larger K.
    """
    feasible = [row for row in rows if row.feasible]
    return min(feasible, key=lambda row: (objective.key(row.measurement), *preference(row))) if feasible else None


def preference(row: Row) -> tuple[float, float, float, int]:
    """Return what decides between rows that the objective holds for equal; smaller is better."""
    measurement = row.measurement
    assert measurement.kl_answer_nats is not None
    accuracy, macs = _objectives(row)
    return macs, accuracy, measurement.kl_answer_nats, -measurement.layer


def least_infeasible(rows: Sequence[Row]) -> Row | None:
    """Return the row that breaks its worst limit by the smallest multiple of that limit; None if no row broke one.

    What only lacks a time breaks nothing that is known.
    """
    broken = [row for row in rows if row.untimed is not None or relative_excess(row)]
    return min(broken, key=lambda row: max(relative_excess(row), default=0.0)) if broken else None


def relative_excess(row: Row) -> list[float]:
    """Return by how many multiples of its bound each broken limit is broken."""
    return [judgement.excess / max(judgement.bound, 1e-12) for judgement in row.judgements if not judgement.holds]
