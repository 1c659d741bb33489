"""Operators: one file and one line of this table each."""

from vtw_search.errors import unknown_name
from vtw_search.operators.base import NOTHING_ASKED, Operator, Request
from vtw_search.operators.budget import BUDGETS, keep_count, keep_counts
from vtw_search.operators.downsample import Downsample
from vtw_search.operators.prune import Prune, Select
from vtw_search.operators.withdraw import Withdraw

OPERATORS: dict[str, Operator] = {
    "withdraw": Withdraw(),
    "prune": Prune(),
    "select": Select(),
    "downsample": Downsample(),
}


def find_operator(name: str) -> Operator:
    """Return the operator called `name`; UnknownNameError with near matches when there is none."""
    if name not in OPERATORS:
        raise unknown_name("operator", name, OPERATORS)
    return OPERATORS[name]


__all__ = [
    "BUDGETS",
    "NOTHING_ASKED",
    "OPERATORS",
    "Operator",
    "Request",
    "find_operator",
    "keep_count",
    "keep_counts",
]
