"""One policy for all tasks, what it costs, and how the policy of one task does on the others.

Candidates are the union of what the tasks measured. Tasks with the same candidates need no further forward pass. Where
a sampler gave them different ones, a policy is scored on the missing tasks if it is within the limits of all those that
measured it; any other cannot be shared.

The shared policy is tested on the confirmation split of every task, in one fixed sequence, and passes where the limits
of all tasks hold. The hypothesis that is refuted says that some limit of some task is broken, a union; all tests at the
full level make a test of that level (intersection-union test: Berger 1982, "Multiparameter hypothesis testing and
acceptance sampling"; Berger and Hsu 1996, section 3), so that more tasks need no correction. They do need more power: a
policy that is at the limit of two tasks passes less often. The same split has tested the policy of each task before;
neither test chose the finalists of the other, and each holds its level by itself, not both together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vtw_search.policies import Policy
from vtw_search.results import Confirmation, Finalist, Row, StudyResult
from vtw_search.search.answer import judged_rows
from vtw_search.search.confirmation import finalist_of, in_sequence, risks, run_sequence
from vtw_search.search.examination import Examination
from vtw_search.search.front import preference, relative_excess
from vtw_search.search.limits import Limits
from vtw_search.search.noise import NoiseQuestion, noise_warning
from vtw_search.search.objective import objective_of
from vtw_search.search.reach import is_binary
from vtw_search.search.study import Study
from vtw_search.search.study_settings import SEARCH_SPLITS
from vtw_search.transfer import Price, SharedPolicy, Sharing

# Policy -> task -> its row there.
Rows = Mapping[Policy, Mapping[str, Row]]


@dataclass(frozen=True)
class Member:
    """One of the tasks that share a policy.

    Attributes:
        study: what measures it.
        limits: its own.
        result: what was found for it.
        examination: who may look at its confirmation split and holdout.
        noise: what other variations of a run change.
    """

    study: Study
    limits: Limits
    result: StudyResult
    examination: Examination
    noise: NoiseQuestion

    @property
    def task(self) -> str:
        """Its name."""
        return self.result.task


def share(members: Sequence[Member]) -> Sharing:
    """Find the best policy that every task's limits allow, test it, measure it on the holdouts, and fill the table.

    The best one has the lowest sum over the tasks of what a single task minimises.

    Raises:
        EvidenceError: a value is missing.
    """
    results = [member.result for member in members]
    candidates = common_candidates(results)
    rows = _rows(members, [*candidates, *(result.chosen.measurement.policy for result in results)])
    transfer = {result.task: rows[result.chosen.measurement.policy] for result in results}
    allowed = [policy for policy in candidates if all(row.feasible for row in rows[policy].values())]
    confirmation = _confirm(members, rows, allowed)
    best = _best(members, rows, allowed) if confirmation is None else confirmation.winner
    shared, failed = _examined(members, rows, [best, Policy.keep_all()], allowed)
    reasons = [*failed, *_tested(shared, confirmation), *_why_no_better(shared, confirmation, results)]
    verdict = "; ".join([_verdict(shared, len(members)), *reasons]) + _warnings(members, shared)
    return Sharing(transfer, verdict, shared, confirmation)


def common_candidates(results: Sequence[StudyResult]) -> list[Policy]:
    """Return, in the order of their tasks, the policies that are feasible for every task that measured them."""
    every = [row for result in results for row in result.rows]
    broken = {row.measurement.policy for row in every if not row.feasible}
    return [each for each in dict.fromkeys(row.measurement.policy for row in every) if each not in broken]


def _rows(members: Sequence[Member], policies: Sequence[Policy]) -> Rows:
    """Return the rows of policies, and of keep-all before them, on every task; what is missing is measured."""
    wanted = list(dict.fromkeys([Policy.keep_all(), *policies]))
    found = {member.task: _rows_of(member, wanted) for member in members}
    return {policy: {task: rows[policy] for task, rows in found.items()} for policy in wanted}


def _rows_of(member: Member, wanted: Sequence[Policy]) -> dict[Policy, Row]:
    # What is feasible was measured on every sample; of anything else, samples may be missing.
    known = {row.measurement.policy: row for row in member.result.rows if row.feasible}
    missing = [policy for policy in wanted if policy not in known]
    if missing:
        asked = list(dict.fromkeys([Policy.keep_all(), *missing]))
        known |= zip(asked, judged_rows(member.study.measure(asked), asked, member.limits), strict=True)
    return known


def _cost(members: Sequence[Member], rows: Mapping[str, Row]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what is minimised, summed over the tasks, and what decides between equals."""
    limits = members[0].limits  # what is preferred is asked for once, for all tasks
    objective = objective_of(limits.prefer, limits.weights)
    keys = [objective.key(row.measurement) for row in rows.values()]
    ties = [preference(row) for row in rows.values()]
    return tuple(map(sum, zip(*keys, strict=True))), tuple(map(sum, zip(*ties, strict=True)))


def _best(members: Sequence[Member], rows: Rows, allowed: Sequence[Policy]) -> Policy | None:
    pruned = [policy for policy in allowed if not policy.is_keep_all]
    return min(pruned, key=lambda policy: _cost(members, rows[policy])) if pruned else None


def _confirm(members: Sequence[Member], rows: Rows, allowed: Sequence[Policy]) -> Confirmation | None:
    """Test the finalists among the allowed policies on every task's confirmation split; None without a level."""
    level = members[0].limits.confidence
    if level is None:
        return None
    risk = _risk(members, rows, allowed, level)
    ranked = [(_cost(members, rows[policy])[0], risk[policy], policy) for policy in allowed if not policy.is_keep_all]
    chosen = in_sequence(ranked, members[0].limits.finalists)
    looks = [member.examination.look_to_test(member.limits, chosen) for member in members]
    frames = {member.task: member.study.measure_confirmation(chosen) for member in members} if chosen else {}

    def test(policy: Policy) -> Finalist:
        found = {
            member.task: finalist_of(frames[member.task], policy, member.limits, level, _binary(member))
            for member in members
        }
        return joint(policy, found)

    tested, left = run_sequence(chosen, test)
    samples = [sample for member in members for sample in member.study.splits["confirmation"]]
    images = len({sample.cluster for sample in samples})
    return Confirmation(level, len(samples), images, max(looks), tested, left)


def _risk(members: Sequence[Member], rows: Rows, allowed: Sequence[Policy], level: float) -> dict[Policy, float]:
    """Return the largest risk of each policy over the tasks, as `confirmation.risks` defines it."""
    found = dict.fromkeys(allowed, 0.0)
    for member in members:
        frame = member.study.samples(SEARCH_SPLITS)
        own = [rows[policy][member.task] for policy in allowed]
        risk = risks(own, frame, member.limits, level, _binary(member))
        found = {policy: max(worst, risk[policy.digest()]) for policy, worst in found.items()}
    return found


def joint(policy: Policy, found: Mapping[str, Finalist]) -> Finalist:
    """Return one finalist from its tests on every task: it passes if it passed all of them."""
    failures = [f"{task}: {each.failure}" for task, each in found.items() if each.failure is not None]
    if failures:
        return Finalist(policy, (), "; ".join(failures))
    tests = [replace(test, limit=f"{task}: {test.limit}") for task, each in found.items() for test in each.tests]
    return Finalist(policy, tuple(tests))


def _binary(member: Member) -> bool:
    return is_binary(member.study.splits["confirmation"])


def _examined(
    members: Sequence[Member], rows: Rows, wanted: Sequence[Policy | None], allowed: Sequence[Policy]
) -> tuple[SharedPolicy | None, list[str]]:
    """Return the first wanted and allowed policy that runs on every holdout, and why those before it did not."""
    failed: list[str] = []
    for policy in wanted:
        if policy is None or policy not in allowed:
            continue
        own = rows[policy]
        holdout = {member.task: member.examination.holdout(own[member.task], member.limits) for member in members}
        broken = [f"{task}: {numbers['failure']}" for task, numbers in holdout.items() if "failure" in numbers]
        if not broken:
            prices = {member.task: _price(member, own[member.task], rows) for member in members}
            noise = {member.task: member.noise.of_policy(policy) for member in members}
            return SharedPolicy(policy, own, prices, holdout, noise), failed
        failed.append(f"{policy.label()} failed on the holdout of {'; '.join(broken)}")
    return None, failed


def _price(member: Member, shared: Row, rows: Rows) -> Price:
    chosen, full = member.result.chosen.measurement, rows[Policy.keep_all()][member.task].measurement
    macs = chosen.macs, shared.measurement.macs, full.macs
    assert None not in macs, "feasible policies and keep-all were counted"
    return Price(*(int(value or 0) for value in macs))


def _verdict(shared: SharedPolicy | None, count: int) -> str:
    if shared is None:
        return f"no policy, not even keep-all, is within the limits of all {count} tasks"
    total = shared.total
    saved, own = (1 - macs / total.keep_all for macs in (total.shared, total.own))
    label = shared.policy.label()
    return f"one policy for all {count} tasks: {label}, {saved:.0%} fewer macs over all; a policy per task {own:.0%}"


def _warnings(members: Sequence[Member], shared: SharedPolicy | None) -> str:
    noise = {} if shared is None else shared.noise
    return "".join(noise_warning(member.limits, noise.get(member.task, {}), member.task) for member in members)


def _tested(shared: SharedPolicy | None, confirmation: Confirmation | None) -> list[str]:
    if shared is None or confirmation is None or shared.policy != confirmation.winner:
        return []
    level = f"{confirmation.level:.0%} confidence"
    return [f"every task's limits hold with {level} on its confirmation split{confirmation.repeated}"]


def _why_no_better(
    shared: SharedPolicy | None, confirmation: Confirmation | None, results: Sequence[StudyResult]
) -> list[str]:
    """Say what stood in the way of a cheaper shared policy."""
    lost = [each for each in confirmation.finalists if not each.passed] if confirmation is not None else []
    if lost:
        return [f"{lost[0].policy.label()} failed: {lost[0].text}"]
    return [] if shared is not None and not shared.policy.is_keep_all else _closest(results)


def _closest(results: Sequence[StudyResult]) -> list[str]:
    """Name the policy whose worst broken limit of any task is broken least, among those that all tasks measured."""
    found: dict[Policy, list[Row]] = {}
    for row in (row for result in results for row in result.rows):
        found.setdefault(row.measurement.policy, []).append(row)
    whole = [
        rows for policy, rows in found.items()
        if len(rows) == len(results) and not policy.is_keep_all
        and all(row.measurement.complete for row in rows) and not all(row.feasible for row in rows)
    ]  # fmt: skip
    if not whole:
        return []
    # What lacks a time breaks nothing that is known, and is no more feasible for that.
    worst = [max(rows, key=lambda row: (not row.feasible, _excess(row))) for rows in whole]
    row = min(worst, key=_excess)
    return [f"closest is {row.measurement.policy.label()}, blocked on {row.measurement.task} by {row.status}"]


def _excess(row: Row) -> float:
    return max(relative_excess(row), default=0.0)
