"""Few finalists, tested in a fixed sequence from the safest to the cheapest on samples that nothing was chosen by.

Fixed-sequence testing (Maurer, Hothorn and Lehmacher 1995): each hypothesis is tested at the full level as long as all
before it were rejected, and the chance of a single wrong confirmation stays within 1 - level. A finalist passes if all
of its limits hold; a wrong pass needs a wrong bound of the limit that it breaks, so that limits need no correction
either (Berger 1982, intersection-union tests).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.results import Confirmation, Finalist, Row
from vtw_search.search.evidence import bounds_of, evidence_of
from vtw_search.search.limits import Limits
from vtw_search.search.objective import Objective, objective_of
from vtw_search.search.reach import is_binary

MOST_FINALISTS = 5
# Risks are estimated on few samples: a dearer policy is kept as a step before a cheaper one that is no more than this
# much safer, because which of the two is safer is not known.
_SAME_RISK = 1.25
# Cost, smaller is better; risk; policy.
Candidate = tuple[tuple[float, ...], float, Policy]


def risks(rows: Sequence[Row], frame: pd.DataFrame, limits: Limits, level: float, binary: bool) -> dict[str, float]:
    """Return, per digest of a feasible row, the worst ratio of an upper bound on the search's samples to its limit.

    At or below 1, the search's own samples would have confirmed it. They chose it, so that this is no test.
    """
    groups = {str(digest): group for digest, group in frame.groupby("policy")}
    reference = groups[Policy.keep_all().digest()]
    # In a task of several metrics the search's samples may have one that the confirmation split lacks.
    binary = binary and bool(frame["score"].dropna().isin((0.0, 1.0)).all())
    found = {}
    for row in rows:
        if row.feasible:
            own = groups[row.measurement.policy.digest()]
            evidence = evidence_of(own, reference, limits, "calibration", "selection", binary)
            tests = bounds_of(limits, evidence, level)
            found[row.measurement.policy.digest()] = max((t.upper / max(t.bound, 1e-12) for t in tests), default=0.0)
    return found


def finalists(
    rows: Sequence[Row], risk: Mapping[str, float], objective: Objective, most: int = MOST_FINALISTS
) -> list[Policy]:
    """Choose at most `most` feasible policies, from the safest to the cheapest; keep-all needs no test.

    Of the policies that no cheaper one is clearly safer than: the dearest, the cheapest, the cheapest that the search's
    own samples would have confirmed, and those half-way to it from both sides.
    """
    feasible = [row.measurement for row in rows if row.feasible and not row.measurement.policy.is_keep_all]
    return in_sequence([(objective.key(own), risk[own.policy.digest()], own.policy) for own in feasible], most)


def in_sequence(candidates: Sequence[Candidate], most: int) -> list[Policy]:
    """Choose and order at most `most` of (cost, risk, policy), as `finalists` says."""
    chain: list[Candidate] = []
    for cost, own, policy in sorted(candidates, key=lambda each: each[:2], reverse=True):
        # A dearer policy that is riskier than this one would only cost a test.
        chain = [each for each in chain if each[0] != cost and each[1] <= own * _SAME_RISK]
        chain.append((cost, own, policy))
    return [chain[place][2] for place in _places([own for _, own, _ in chain], most)]


def _places(risk: Sequence[float], most: int) -> list[int]:
    """Return which members of a chain of rising risk are tested, in order."""
    if not risk:
        return []
    last = len(risk) - 1
    likely = max((place for place, value in enumerate(risk) if value <= 1), default=0)
    wanted = [0, likely, last, likely // 2, (likely + last + 1) // 2, *range(len(risk))]
    return sorted(list(dict.fromkeys(wanted))[:most])


def run_sequence(
    policies: Sequence[Policy], test: Callable[[Policy], Finalist]
) -> tuple[tuple[Finalist, ...], tuple[str, ...]]:
    """Test policies in their order until one fails; returns those that were tested and the labels of the others."""
    tested: list[Finalist] = []
    for policy in policies:
        tested.append(test(policy))
        if not tested[-1].passed:
            break
    return tuple(tested), tuple(policy.label() for policy in policies[len(tested) :])


def finalist_of(frame: pd.DataFrame, policy: Policy, limits: Limits, level: float, binary: bool) -> Finalist:
    """Test one policy on its records of the confirmation split.

    Raises:
        EvidenceError: it was not measured on the samples of keep-all, or a value is missing.
    """
    own, reference = (frame[frame["policy"] == each.digest()] for each in (policy, Policy.keep_all()))
    failures = own.loc[own["failure"].notna(), "failure"]
    if len(failures):
        return Finalist(policy, (), str(failures.iloc[0]))
    evidence = evidence_of(own, reference, limits, "confirmation", "confirmation", binary)
    return Finalist(policy, bounds_of(limits, evidence, level))


def confirm(
    rows: Sequence[Row],
    frame: pd.DataFrame,
    limits: Limits,
    samples: Sequence[Sample],
    measure: Callable[[Sequence[Policy]], pd.DataFrame],
    look: Callable[[Sequence[Policy]], int],
) -> Confirmation:
    """Choose finalists on the search's own records, measure them on the confirmation split, and test them in sequence.

    Args:
        rows, frame: judged measurements, keep-all first, and the sample records behind them.
        limits: with the confidence that is asked for.
        samples: of the confirmation split.
        measure: returns the records of policies and of keep-all on it.
        look: notes that policies are about to be tested on it, and returns how often it was used to test.

    Raises:
        EvidenceError: a value is missing.
    """
    level, binary = limits.confidence, is_binary(samples)
    assert level is not None, "without a level there is nothing to confirm"
    risk = risks(rows, frame, limits, level, binary)
    chosen = finalists(rows, risk, objective_of(limits.prefer, limits.weights), limits.finalists)
    looks = look(chosen)
    measured = measure(chosen) if chosen else frame.iloc[:0]
    tested, left = run_sequence(chosen, lambda policy: finalist_of(measured, policy, limits, level, binary))
    return Confirmation(level, len(samples), len({sample.cluster for sample in samples}), looks, tested, left)
