"""What every winner has to beat: random tokens at its own macs, and the two grid poolings around them.

Random pruning beats some published methods, and a coarser grid costs nothing to deploy; a policy that is no better than
these has found nothing. The first of either kind is tried with positions kept and numbered anew, where the model allows
it, and the others as was better: a baseline that suffers from its positions would be too easy to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

import pandas as pd
from pydantic import Field, TypeAdapter

from vtw_search.evaluation.statistics import paired_difference_interval
from vtw_search.facts import ModelFacts
from vtw_search.files import remembered
from vtw_search.policies import Policy
from vtw_search.recipes import Value, find_recipe
from vtw_search.records import Measurement
from vtw_search.results import Baseline, Row
from vtw_search.search.answer import judged_rows
from vtw_search.search.limits import Limits
from vtw_search.search.study import Study
from vtw_search.search.study_settings import SEARCH_SPLITS

SEEDS = (0, 1, 2)
# Raised when other baselines are listed, so that old lists are left alone.
_LISTED = 2
# Two policies whose macs differ by less are held to cost the same.
_SAME_MACS = 1.02
_STORED = TypeAdapter(Annotated[list[Policy], Field(min_length=1)])


def measured_baselines(study: Study, chosen: Row, limits: Limits) -> tuple[Baseline, ...]:
    """Measure the baselines of the chosen policy on the samples that it was chosen by; none for keep-all."""
    if chosen.measurement.policy.is_keep_all:
        return ()
    winner = chosen.measurement.policy
    path = study.store(SEARCH_SPLITS).derived(f"baselines-{_LISTED}-{winner.digest()}", winner)
    policies = remembered(path, _STORED, partial(_matched, study, chosen.measurement), study.progress.note)
    measured = study.measure([Policy.keep_all(), winner, *policies])
    return compared(chosen, judged_rows(measured, [Policy.keep_all(), *policies], limits)[1:], measured.samples)


def _matched(study: Study, chosen: Measurement) -> list[Policy]:
    profiler = study.profiler
    assert chosen.macs is not None, "the chosen policy was measured"
    visual = int(profiler.layout.visual.sum())

    def accuracy(policies: Sequence[Policy]) -> list[float]:
        found = study.measure([Policy.keep_all(), *policies]).measurements
        return [found[policy.digest()].accuracy or 0.0 for policy in policies]

    found = baselines_of(chosen.macs, study.loaded.facts, visual, lambda policy: profiler.macs(policy).total, accuracy)
    study.progress.note(f"{study.settings.task}: {len(found)} baselines to hold against {chosen.policy.label()}")
    return found


def baselines_of(
    budget: int, facts: ModelFacts, visual: int, macs: Callable[[Policy], int],
    accuracy: Callable[[Sequence[Policy]], Sequence[float]],
) -> list[Policy]:  # fmt: skip
    """Return the baselines of a winner.

    Args:
        budget: its macs.
        facts: of the model.
        visual: visual tokens of the sample that macs are counted on.
        macs: counts a policy on that sample.
        accuracy: measures policies.
    """
    kinds = [_randoms(budget, facts, visual, macs)]
    if not {"before_decoder", "grids"} & set(facts.missing):
        kinds.append(_poolings(budget, facts, visual, macs))
    kinds = [kind for kind in kinds if kind]
    firsts = [[_numbered(first, position) for position in _positions(first, facts)] for first, *_ in kinds]
    scores = _scores([policy for tried in firsts if len(tried) > 1 for policy in tried], accuracy)
    found: list[Policy] = []
    for tried, (_, *others) in zip(firsts, kinds, strict=True):
        best = max(tried, key=lambda policy: scores.get(policy, 0.0))
        found += [*tried, *(_numbered(policy, best.stages[0].position) for policy in others)]
    return list(dict.fromkeys(found))


def _scores(policies: Sequence[Policy], accuracy: Callable[[Sequence[Policy]], Sequence[float]]) -> dict[Policy, float]:
    """Return the accuracies of policies, which are measured together."""
    return dict(zip(policies, accuracy(policies), strict=True)) if policies else {}


def _positions(policy: Policy, facts: ModelFacts) -> Sequence[str]:
    fixed = policy.stages[0].site == "decoder" or "recount" in facts.missing
    return ("keep",) if fixed else ("keep", "recount")


def _numbered(policy: Policy, position: str) -> Policy:
    [stage] = policy.stages
    return Policy(stages=(stage.model_copy(update={"position": position}),))


def _randoms(budget: int, facts: ModelFacts, visual: int, macs: Callable[[Policy], int]) -> list[Policy]:
    """Return random prunings at the earliest place, with as many tokens as the budget pays for, 1 at least."""
    layer = 0 if "before_decoder" not in facts.missing else facts.first_layer

    def policy(count: int, seed: int = 0) -> Policy:
        return _of("random", facts, {"layer": layer, "keep": count, "position": "keep", "seed": seed})

    low, high = 1, visual
    while low < high:  # macs rise with the count
        middle = (low + high + 1) // 2
        low, high = (middle, high) if macs(policy(middle)) <= budget else (low, middle - 1)
    return [policy(low, seed) for seed in SEEDS]


def _poolings(budget: int, facts: ModelFacts, visual: int, macs: Callable[[Policy], int]) -> list[Policy]:
    """Return the dearest pooling within the budget and the cheapest beyond it."""
    side = max(1, round(visual**0.5))

    def policy(number: int) -> Policy:
        return _of("downsample", facts, {"keep": (number / side) ** 2, "mode": "mean", "position": "keep"})

    costs = {number: macs(policy(number)) for number in range(1, side)}  # rise with the number
    within = [number for number, cost in costs.items() if cost <= budget]
    beyond = [number for number, cost in costs.items() if cost > budget]
    return [policy(number) for number in (*within[-1:], *beyond[:1])]


def _of(recipe: str, facts: ModelFacts, chosen: Mapping[str, Value]) -> Policy:
    policy = find_recipe(recipe).policy(facts, chosen)
    assert policy is not None, "these parameters go together"
    return policy


def compared(winner: Row, baselines: Sequence[Row], frame: pd.DataFrame) -> tuple[Baseline, ...]:
    """Return each baseline with the winner's advantage in accuracy, paired by sample of the selection split."""
    scores = frame[frame["split"] == "selection"].set_index("sample")
    own = scores[scores["policy"] == winner.measurement.policy.digest()]
    found = []
    for row in baselines:
        if row.measurement.failure is not None:
            continue
        other = scores[scores["policy"] == row.measurement.policy.digest()].loc[own.index]
        gains = (own["score"] - other["score"]).tolist()
        low, high = paired_difference_interval(gains, own["cluster"].tolist())
        found.append(Baseline(row, sum(gains) / len(gains), low, high))
    return tuple(found)


def affordable(winner: Row, baselines: Sequence[Baseline]) -> list[Baseline]:
    """Return the baselines that cost no more than the winner."""
    cost = winner.measurement.macs or 0
    return [each for each in baselines if (each.row.measurement.macs or 0) <= cost * _SAME_MACS]


def not_beaten(winner: Row, baselines: Sequence[Baseline]) -> list[Baseline]:
    """Return the baselines that cost no more than the winner and are not surely worse: its interval reaches 0."""
    return [each for each in affordable(winner, baselines) if each.low <= 0]


def baselines_text(winner: Row, baselines: Sequence[Baseline]) -> str:
    """Return what the baselines say of the winner, for the verdict; nothing without any."""
    if not baselines:
        return ""
    equal = not_beaten(winner, baselines)
    if not equal:
        # The winner was chosen on these samples, which the baselines were not: luck among many candidates is in it.
        count = len(affordable(winner, baselines))
        return f"; on the samples that chose it, surely more accurate than every baseline that costs no more ({count})"
    best = max(equal, key=lambda each: each.row.measurement.accuracy or 0.0).row.measurement
    share = (best.macs or 0) / (winner.measurement.macs or 1)
    scored = f"accuracy {best.accuracy:.3f} at {share:.0%} of its macs"
    recipe = "downsample" if best.policy.stages[0].operator == "downsample" else "random"
    return (
        f"; NOT surely better than the baseline {best.policy.label()}, {scored} (space={recipe} has more of its kind)"
    )
