"""Recipes: one class and one line of this table each, and a YAML in `conf/space` and `conf/recipe`."""

from vtw_search.errors import unknown_name
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


__all__ = ["RECIPES", "Parameter", "Recipe", "Value", "find_recipe"]
