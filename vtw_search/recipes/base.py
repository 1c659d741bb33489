"""What a recipe is: a published method as a policy with parameters, and the ranges that a search may choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy, ScorerChoice, Stage

Value = bool | int | float | str


@dataclass(frozen=True)
class Parameter:
    """One parameter of a recipe on one model: the published value, fitted to the model, and what may be chosen."""

    default: Value
    values: Sequence[Value]


class Recipe(Protocol):
    """A method.

    Attributes:
        name: as in `space=<name>` and `recipe=<name>`.
        source: paper, and what its published values are for.
    """

    name: str
    source: str

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return the parameters on a model."""

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy | None:
        """Return the policy of a full set of parameters; None where they do not go together."""


def prune(layer: int, keep: float | int | str, scorer: str, **options: Value) -> Stage:
    """Return a pruning stage inside the decoder."""
    return Stage(layer=layer, operator="prune", keep=keep, scorer=ScorerChoice(name=scorer, options=options))


def withdraw(layer: int) -> Stage:
    """Return a withdrawal stage."""
    return Stage(layer=layer, operator="withdraw")


def before_decoder(
    operator: str, keep: float | int | str, position: str, scorer: str | None = None, **options: Value
) -> Stage:
    """Return a stage before the decoder; `options` are the scorer's, or, where there is none, the operator's."""
    choice = None if scorer is None else ScorerChoice(name=scorer, options=options)
    return Stage.model_validate({
        "site": "vision", "layer": 0, "operator": operator, "keep": keep, "scorer": choice, "position": position,
        "options": {} if scorer else options,
    })  # fmt: skip


def positions(facts: ModelFacts, default: str) -> Parameter:
    """Return how a stage before the decoder numbers what is left.

    The papers number it anew, since their decoders are given a shorter sequence. Which one a model takes better has to
    be measured: one that has always seen equally many tokens may not know its text at another distance.
    """
    if "recount" in facts.missing:
        return Parameter("keep", ("keep",))
    return Parameter(default, ("recount", "keep"))


def layers_of(facts: ModelFacts) -> list[int]:
    """Return every layer at which tokens may leave and something is saved."""
    return list(range(facts.first_layer, min(facts.last_layer, facts.num_layers - 1) + 1))


def nearest(values: Sequence[int], wanted: float) -> int:
    """Return the value closest to `wanted`, the smaller of two."""
    return min(values, key=lambda value: (abs(value - wanted), value))


def some(values: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the values, evenly spaced, ends included."""
    if len(values) <= most:
        return list(values)
    return sorted({values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)})


SHARES = (0.75, 0.5, 0.33, 0.25, 0.125, 0.0625)
