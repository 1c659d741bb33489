"""From measurements and limits to the answer of a study, in one sentence and in numbers. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from vtw_search.errors import OutOfReachError, StoreError
from vtw_search.policies import Policy
from vtw_search.records import Measured, Measurement
from vtw_search.results import Confirmation, Row
from vtw_search.search.front import least_infeasible, mark_front, preferred
from vtw_search.search.judge import COSTS, judge, untimed
from vtw_search.search.limits import Limits
from vtw_search.search.objective import DEFAULT, Objective


@dataclass(frozen=True)
class Answer:
    """Judged rows, the chosen one, and a sentence for people."""

    rows: tuple[Row, ...]
    chosen: Row
    verdict: str


def judged_rows(measured: Measured, candidates: Sequence[Policy], limits: Limits) -> list[Row]:
    """Judge the measurements of `candidates`, in their order.

    Raises:
        StoreError: a measurement is missing.
    """
    measurements, frame = measured.measurements, measured.samples
    groups: dict[str, pd.DataFrame] = {str(digest): group for digest, group in frame.groupby("policy")}
    reference = groups.get(Policy.keep_all().digest(), frame.iloc[:0])
    rows = []
    for policy in candidates:
        digest = policy.digest()
        if digest not in measurements:
            remedy = "run the search again; it resumes"
            raise StoreError(f"no measurement of {policy.label()}", value=measured.source, remedy=remedy)
        own = measurements[digest]
        rows.append(Row(own, judge(limits, own, groups[digest], reference), untimed=untimed(limits, own)))
    return rows


def choose(rows: Sequence[Row], objective: Objective = DEFAULT) -> Answer:
    """Choose the preferred row; keep-all, which must be the first row, if no other is feasible."""
    keep_all = rows[0]
    withdrawals = mark_front(rows)[1:]
    best = preferred(withdrawals, objective)
    marked = mark_front(rows)
    if best is None:
        chosen = replace(marked[0], chosen=True)
        return Answer((chosen, *marked[1:]), chosen, _nothing_feasible(rows))
    return _with_choice(marked, best.measurement.policy, f"{_chosen_text(best, keep_all)}; {_why(objective)}")


def _with_choice(rows: Sequence[Row], policy: Policy, verdict: str) -> Answer:
    marked = tuple(replace(row, chosen=row.measurement.policy == policy) for row in rows)
    return Answer(marked, next(row for row in marked if row.chosen), verdict)


def confirmed(answer: Answer, confirmation: Confirmation) -> Answer:
    """Return the answer with the finalist that was confirmed, or keep-all where none was."""
    if not confirmation.finalists:
        # Nothing but keep-all was within the limits, which the answer says already.
        return answer
    winner, level = confirmation.winner, f"{confirmation.level:.0%} confidence"
    lost = next((each for each in confirmation.finalists if not each.passed), None)
    failed = "" if lost is None else f"{lost.policy.label()} failed: {lost.text}"
    if winner is None:
        return _with_choice(answer.rows, Policy.keep_all(), f"keep-all: nothing holds with {level}; {failed}")
    row = next(row for row in answer.rows if row.measurement.policy == winner)
    limits = f"limits hold with {level} on {confirmation.images} images{confirmation.repeated}"
    verdict = "; ".join(filter(None, [_chosen_text(row, answer.rows[0]), limits, failed]))
    return _with_choice(answer.rows, winner, verdict)


def with_measurement(answer: Answer, measurement: Measurement) -> Answer:
    """Return the answer with what is known by now of one of its policies; no judgement depends on what is new."""
    rows = tuple(
        replace(row, measurement=measurement) if row.measurement.policy == measurement.policy else row
        for row in answer.rows
    )
    return replace(answer, rows=rows, chosen=next(row for row in rows if row.chosen))


def keep_all_instead(answer: Answer, reason: str) -> Answer:
    """Return the answer with keep-all chosen, because the choice cannot be used."""
    label = answer.chosen.measurement.policy.label()
    return _with_choice(answer.rows, Policy.keep_all(), f"keep-all: {label} {reason}")


def require_affordable(task: str, answer: Answer, limits: Limits) -> None:
    """Refuse to export a policy that costs more than was asked for: keep-all is the answer when nothing else is.

    Raises:
        OutOfReachError: the chosen row breaks a limit on a cost, or lacks a time that is limited.
    """
    broken = [judged.text for judged in answer.chosen.judgements if judged.limit in COSTS and not judged.holds]
    if answer.chosen.untimed is not None and limits != limits.without_time():
        broken.append(answer.chosen.untimed)
    if broken:
        remedy = "loosen limits.at_most or the limits on quality; what was measured is kept"
        rule = f"no policy for {task} meets every limit: {'; '.join(broken)}"
        raise OutOfReachError(rule, value=answer.verdict, remedy=remedy)


def accuracy_warning(limits: Limits, keep_all: Row) -> str:
    """Return, for the verdict, that limits on accuracy bind nothing, since keep-all has none to lose; else nothing."""
    limited = limits.accuracy_drop is not None or any("accuracy_drop" in bounds for bounds in limits.slices.values())
    if not limited or keep_all.measurement.accuracy != 0:
        return ""
    samples = keep_all.measurement.selection_samples
    return (
        f"; WARNING: keep-all scores 0 on all {samples} selection samples, so that no policy can break a limit on "
        "accuracy; compare its answers, in samples.parquet, with the task's, and look at prompt, metric and "
        "max_new_tokens"
    )


def _chosen_text(chosen: Row, keep_all: Row) -> str:
    measurement = chosen.measurement
    assert measurement.macs_ratio is not None
    assert measurement.accuracy is not None
    saved = f"{1 - measurement.macs_ratio:.0%} fewer macs"
    if measurement.latency_ratio is not None:
        unsure = "?" if measurement.latency_problems else ""
        saved += f", {measurement.latency_ratio:.2f}{unsure} of the prefill time"
    scores = f"accuracy {measurement.accuracy:.3f} against {keep_all.measurement.accuracy:.3f}"
    judged = [judgement.value for judgement in chosen.judgements if judgement.limit == "kl_nats"]
    divergence = f"KL {judged[0] if judged else measurement.kl_answer_nats:.2g} nats"
    return f"{measurement.policy.label()}: {saved}, {scores}, {divergence}"


def _why(objective: Objective) -> str:
    return "cheapest within the limits" if objective == DEFAULT else f"lowest {objective.text} within the limits"


def _nothing_feasible(rows: Sequence[Row]) -> str:
    closest = least_infeasible(rows[1:])
    if closest is None:
        return "keep-all: no other policy could be measured"
    label = closest.measurement.policy.label()
    return f"keep-all: no other policy meets the limits; closest is {label}, blocked by {closest.status}"
