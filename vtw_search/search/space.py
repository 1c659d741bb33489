"""What a search may choose from: recipes, each with the values that its parameters may take on this model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from vtw_search.errors import ConfigError, near_matches
from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy
from vtw_search.recipes import Value, find_recipe
from vtw_search.runtime import make_ready


@dataclass(frozen=True)
class Space:
    """The recipes of a search on one model.

    Attributes:
        facts: of the model.
        values: recipe -> parameter -> what may be chosen; the first is the default.
    """

    facts: ModelFacts
    values: Mapping[str, Mapping[str, Sequence[Value]]]

    @property
    def size(self) -> int:
        """How many combinations there are, those that do not go together included."""
        return sum(math.prod(len(values) for values in parameters.values()) for parameters in self.values.values())

    def policy(self, recipe: str, chosen: Mapping[str, Any]) -> Policy | None:
        """Return the policy of a combination; None where its parts do not go together."""
        return find_recipe(recipe).policy(self.facts, chosen)

    def defaults(self) -> list[Policy]:
        """Return every recipe with the first of each parameter's values."""
        found = (
            self.policy(name, {key: values[0] for key, values in parameters.items()})
            for name, parameters in self.values.items()
        )
        return list(dict.fromkeys(policy for policy in found if policy is not None))

    def policies(self) -> Iterator[Policy]:
        """Yield every distinct policy, recipe by recipe."""
        seen: set[Policy] = set()
        for name, parameters in self.values.items():
            for combination in product(*parameters.values()):
                policy = self.policy(name, dict(zip(parameters, combination, strict=True)))
                if policy is not None and policy not in seen:
                    seen.add(policy)
                    yield policy


def make_space(facts: ModelFacts, recipes: Mapping[str, Mapping[str, Any]], layers: tuple[int, int] | None) -> Space:
    """Return the space of `recipes` on a model.

    Args:
        facts: of the model.
        recipes: name -> parameter -> a value or a list of values in place of the recipe's own.
        layers: narrows the layers of `vtw` to a range; None takes all that the model supports.

    Raises:
        ConfigError: a parameter does not exist, or a range does not fit the model.
        PolicyError: the model lacks what a recipe needs.
        UnknownNameError: there is no such recipe.
    """
    values = {name: _values(facts, name, given) for name, given in recipes.items()}
    if layers is not None and "vtw" in values:
        values["vtw"]["layer"] = _narrowed(facts, layers)
    space = Space(facts, values)
    for policy in space.defaults():
        make_ready(policy, facts)
    return space


def _values(facts: ModelFacts, name: str, given: Mapping[str, Any]) -> dict[str, Sequence[Value]]:
    parameters = find_recipe(name).parameters(facts)
    for key in given:
        if key not in parameters:
            raise ConfigError(f"unknown parameter {key!r} of recipe {name!r}", remedy=near_matches(key, parameters))
    found: dict[str, Sequence[Value]] = {}
    for key, parameter in parameters.items():
        asked = given.get(key)
        if asked is None:
            found[key] = list(dict.fromkeys((parameter.default, *parameter.values)))
        else:
            found[key] = list(asked) if isinstance(asked, list | tuple) else [asked]
    return found


def _narrowed(facts: ModelFacts, layers: tuple[int, int]) -> list[int]:
    low, high = layers
    if not facts.first_layer <= low <= high < facts.num_layers:
        raise ConfigError(
            f"space.first_layer..space.last_layer must lie in {facts.first_layer}..{facts.num_layers - 1}",
            value=f"{low}..{high}",
            remedy=f"this model has {facts.num_layers} decoder layers; K = {facts.num_layers} is keep-all",
        )
    return list(range(low, high + 1))


def candidates_of(space: Space) -> list[Policy]:
    """Return keep-all, then every policy of the space, the earliest stage first.

    Raises:
        ConfigError: there is none.
        PolicyError: one is beyond what the model can do.
    """
    found = list(space.policies())
    for policy in found:
        make_ready(policy, space.facts)
    if not found:
        raise ConfigError("a space must hold a policy that the model can do", value=sorted(space.values))
    return [Policy.keep_all(), *sorted(found, key=lambda policy: [stage.layer for stage in policy.stages])]


def policy_layer(policy: Policy, layers: int) -> int:
    """Return K of a policy: its first stage's layer, or L (`layers`) for keep-all."""
    return policy.stages[0].layer if policy.stages else layers
