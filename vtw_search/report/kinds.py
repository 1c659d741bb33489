"""What sort of policy a row is: which operators act, in order. It decides colours and markers of pictures."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from vtw_search.policies import Policy, Stage
from vtw_search.results import StudyResult

KEEP_ALL = "keep all"
# Okabe and Ito's palette without black, which baselines have, and vermillion, which the chosen policy has.
_COLORS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c6d1f", "#6b6b6b")
# The same shapes as matplotlib and plotly call them.
_SHAPES = (("o", "circle"), ("s", "square"), ("^", "triangle-up"), ("D", "diamond"), ("v", "triangle-down"))


class Mark(NamedTuple):
    """How a kind is drawn."""

    color: str
    marker: str
    symbol: str


def is_withdrawal(policy: Policy) -> bool:
    """Whether a policy is keep-all or one withdrawal, so that K says everything."""
    return [stage.operator for stage in policy.stages] in ([], ["withdraw"])


def by_layer(result: StudyResult) -> bool:
    """Whether K tells all policies of a study apart."""
    return all(is_withdrawal(row.measurement.policy) for row in result.rows)


def kind_of(policy: Policy) -> str:
    """Return the operators of a policy with their scorers, such as `2 x prune (text_to_visual) + withdraw`."""
    if policy.is_keep_all:
        return KEEP_ALL
    groups = [(name, len(list(found))) for name, found in groupby(map(_name, policy.stages))]
    return " + ".join(name if count == 1 else f"{count} x {name}" for name, count in groups)


def _name(stage: Stage) -> str:
    return stage.operator if stage.scorer is None else f"{stage.operator} ({stage.scorer.name})"


def marks_of(result: StudyResult) -> dict[str, Mark]:
    """Return the kinds of a study in the order of their rows; no two kinds look alike up to 35 of them."""
    kinds = dict.fromkeys(kind_of(row.measurement.policy) for row in result.rows)
    return {
        kind: Mark(_COLORS[place % len(_COLORS)], *_SHAPES[place % len(_SHAPES)]) for place, kind in enumerate(kinds)
    }
