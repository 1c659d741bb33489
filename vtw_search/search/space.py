"""What a search may choose from: recipes, each with the values that its parameters may take on this model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np

from vtw_search.errors import ConfigError, near_matches
from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy
from vtw_search.recipes import Value, find_recipe, recipe_policy
from vtw_search.recipes.base import layers_of, some
from vtw_search.runtime import make_ready

# A recipe and what was chosen for its parameters.
Combination = tuple[str, Mapping[str, Value]]


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

    def has_more_than(self, count: int) -> bool:
        """Whether there are more than `count` distinct policies; combinations that do not go together are none."""
        return next(islice(self.policies(), count, None), None) is not None

    def policy(self, recipe: str, chosen: Mapping[str, Any]) -> Policy | None:
        """Return the policy of a combination; None where its parts do not go together."""
        return recipe_policy(recipe, self.facts, chosen)

    def starts(self) -> Iterator[Combination]:
        """Yield the combinations that a sampler starts from: every recipe's default, and all of `vtw`."""
        for name, parameters in self.values.items():
            yield name, {key: values[0] for key, values in parameters.items()}
        for layer in self.values.get("vtw", {}).get("layer", []):
            yield "vtw", {"layer": layer}

    def draw(self, random: np.random.Generator, count: int) -> Iterator[Combination]:
        """Yield `count` combinations at random, each as likely as any; all of them where there are no more."""
        sizes = {name: math.prod(map(len, parameters.values())) for name, parameters in self.values.items()}
        every = range(self.size) if count >= self.size else random.integers(self.size, size=count).tolist()
        for number in every:
            for name, size in sizes.items():
                if number < size:
                    yield name, self._combination(name, number)
                    break
                number -= size

    def _combination(self, name: str, number: int) -> Mapping[str, Value]:
        """Return combination `number` of a recipe, counted with its first parameter the fastest."""
        chosen = {}
        for key, values in self.values[name].items():
            number, place = divmod(number, len(values))
            chosen[key] = values[place]
        return chosen

    def near(self, recipe: str, chosen: Mapping[str, Value]) -> Iterator[Combination]:
        """Yield the combinations that differ in one parameter: by one rank in a number, anyhow in anything else."""
        for key, values in self.values[recipe].items():
            for value in _next_to(values, chosen[key]):
                yield recipe, {**chosen, key: value}

    def located(self, places: Iterable[Combination]) -> dict[Policy, Combination]:
        """Return the distinct policies of combinations, each with the first that makes it."""
        found: dict[Policy, Combination] = {}
        for place in places:
            policy = self.policy(*place)
            if policy is not None:
                found.setdefault(policy, place)
        return found

    def defaults(self) -> list[Policy]:
        """Return the policies of `starts`."""
        return list(self.located(self.starts()))

    def seeds(self, trials: int) -> list[Policy]:
        """Return what a sampler of so many trials measures first: `defaults`, and the sweep over withdrawals.

        One pass scores all withdrawals at one layer for little more than the reference, and what they show orders
        deeper policies. They take at most half of the trials.
        """
        sweep = map(Policy.withdraw, some(layers_of(self.facts), max(2, trials // 2)))
        return list(dict.fromkeys([*self.defaults(), *sweep]))

    def policies(self) -> Iterator[Policy]:
        """Yield every distinct policy, recipe by recipe."""
        seen: set[Policy] = set()
        for name, parameters in self.values.items():
            for combination in product(*parameters.values()):
                policy = self.policy(name, dict(zip(parameters, combination, strict=True)))
                if policy is not None and policy not in seen:
                    seen.add(policy)
                    yield policy


def are_numbers(values: Sequence[Value]) -> bool:
    """Whether all values are numbers, so that they have an order."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _next_to(values: Sequence[Value], value: Value) -> Sequence[Value]:
    if not are_numbers(values):
        return [other for other in values if other != value]
    ordered = sorted(values)
    place = ordered.index(value)
    return [*ordered[max(place - 1, 0) : place], *ordered[place + 1 : place + 2]]


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
