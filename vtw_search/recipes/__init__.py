"""Recipes: one class and one line of this table each, and a YAML in `conf/space` and `conf/recipe`."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from vtw_search.errors import PolicyError, unknown_name
from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy
from vtw_search.recipes.base import Parameter, Recipe, Value
from vtw_search.recipes.decoder import Curve, FastV, HiMap, PruneWithdraw, Pyramid, Vtw
from vtw_search.recipes.vision import Downsample, FoPru, ImageTextInteraction, Random, VtcCls

RECIPES: dict[str, Recipe] = {
    "vtw": Vtw(),
    "fastv": FastV(),
    "himap": HiMap(),
    "pyramid": Pyramid(),
    "curve": Curve(),
    "prune_withdraw": PruneWithdraw(),
    "vtc_cls": VtcCls(),
    "fopru": FoPru(),
    "image_text_interaction": ImageTextInteraction(),
    "random": Random(),
    "downsample": Downsample(),
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe called `name`; UnknownNameError with near matches when there is none."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]


def recipe_policy(name: str, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy | None:
    """Return the policy of a recipe with a full set of parameters; None where they do not go together.

    Raises:
        PolicyError: a parameter has a value that no stage of a policy can have.
        UnknownNameError: there is no such recipe.
    """
    try:
        return find_recipe(name).policy(facts, chosen)
    except ValidationError as error:
        first = error.errors()[0]
        field = f"{first['loc'][0]}: " if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        rule = f"the parameters of recipe {name!r} must make a policy"
        raise PolicyError(rule, value=dict(chosen), remedy=f"{field}{message[0].lower()}{message[1:]}") from error


__all__ = ["RECIPES", "Parameter", "Recipe", "Value", "find_recipe", "recipe_policy"]
