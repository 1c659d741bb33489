"""Operators: one file and one line of this table each."""

from vtw_search.errors import unknown_name
from vtw_search.operators.base import Operator
from vtw_search.operators.withdraw import Withdraw

OPERATORS: dict[str, Operator] = {"withdraw": Withdraw()}


def find_operator(name: str) -> Operator:
    """Return the operator called `name`; UnknownNameError with near matches when there is none."""
    if name not in OPERATORS:
        raise unknown_name("operator", name, OPERATORS)
    return OPERATORS[name]


__all__ = ["OPERATORS", "Operator", "find_operator"]
