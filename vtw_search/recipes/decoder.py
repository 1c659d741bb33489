"""Recipes that act inside the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy, Stage
from vtw_search.recipes.base import SHARES, Parameter, layers_of, nearest, prune, some, withdraw


class Vtw:
    """All visual tokens leave at one layer."""

    name = "vtw"
    source = "VTW (arXiv 2405.05803): K = 16 of 32 layers on LLaVA-1.5-7B"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return `layer`."""
        layers = layers_of(facts)
        return {"layer": Parameter(nearest(layers, facts.num_layers / 2), layers)}

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy:
        """Return the withdrawal."""
        return Policy.withdraw(chosen["layer"])


class FastV:
    """One pruning early on, by the attention of the last prompt token."""

    name = "fastv"
    source = "FastV (arXiv 2403.06764): half of the tokens at layer 2"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return `layer` and `keep`."""
        layers = layers_of(facts)
        return {"layer": Parameter(nearest(layers, 2), layers), "keep": Parameter(0.5, SHARES)}

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy:
        """Return the pruning."""
        return Policy(stages=(prune(chosen["layer"], chosen["keep"], "text_to_visual", queries="last"),))


class HiMap:
    """A shallow pruning by the instruction's attention and a deep one by the attention among visual tokens."""

    name = "himap"
    source = "HiMAP (arXiv 2503.13108): half at layer 2, a quarter of the rest at layer 8 of 32"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return both layers and shares; `normalise` takes the causal bias out of the second score."""
        layers = layers_of(facts)
        first = nearest(layers, 2)
        later = [layer for layer in layers if layer > first] or layers
        return {
            "first": Parameter(first, some(layers, 6)),
            "first_keep": Parameter(0.5, (0.75, 0.5, 0.25)),
            "second": Parameter(nearest(later, max(facts.num_layers / 4, first + 1)), some(later, 6)),
            "second_keep": Parameter(0.25, (0.5, 0.25, 0.125)),
            "normalise": Parameter(False, (False, True)),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy | None:
        """Return the two prunings."""
        if chosen["second"] <= chosen["first"]:
            return None
        return Policy(
            stages=(
                prune(chosen["first"], chosen["first_keep"], "text_to_visual", queries="instruction"),
                prune(chosen["second"], chosen["second_keep"], "visual_received", normalise=chosen["normalise"]),
            )
        )


class Pyramid:
    """The same share stays at evenly spaced layers, by the attention of the last prompt token; then nothing."""

    name = "pyramid"
    source = "PyramidDrop (arXiv 2410.17247): half stays after each quarter of the layers"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return how many prunings, the share, and whether a withdrawal ends it."""
        return {
            "stages": Parameter(3, (2, 3)),
            "keep": Parameter(0.5, (0.75, 0.5, 0.25, 0.125)),
            "end": Parameter("keep", ("keep", "withdraw")),
            "span": Parameter(1.0, (0.5, 0.75, 1.0)),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy | None:
        """Return the prunings at equal distances over a `span` of the layers."""
        places = _places(facts, chosen["stages"] + (chosen["end"] == "withdraw"), chosen["span"])
        if places is None:
            return None
        stages: list[Stage] = [prune(layer, chosen["keep"], "text_to_visual") for layer in places[: chosen["stages"]]]
        return Policy(stages=(*stages, *(withdraw(layer) for layer in places[chosen["stages"] :])))


class Curve:
    """A keep curve over the layers with few parameters: linear or sigmoid from all tokens down to none."""

    name = "curve"
    source = "a schedule with three parameters for samplers; no paper's own"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return the shape, where half of the tokens have left, how fast they leave, and the scorer."""
        return {
            "shape": Parameter("sigmoid", ("sigmoid", "linear")),
            "middle": Parameter(0.5, (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
            "width": Parameter(0.3, (0.1, 0.2, 0.3, 0.5)),
            "scorer": Parameter("text_to_visual", ("text_to_visual", "text_relevance", "visual_received")),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy | None:
        """Return up to three prunings on the curve and the withdrawal at its end."""
        middle, width, layers = chosen["middle"], chosen["width"], layers_of(facts)
        depths = [middle - width / 2, middle, middle + width / 2, middle + width]
        shares = (0.75, 0.5, 0.25) if chosen["shape"] == "linear" else (0.88, 0.5, 0.12)
        places = [nearest(layers, depth * facts.num_layers) for depth in depths]
        if len(set(places)) < len(places):
            return None
        kept = [share / before for before, share in zip((1.0, *shares), shares, strict=False)]
        stages = [prune(layer, share, chosen["scorer"]) for layer, share in zip(places, kept, strict=False)]
        return Policy(stages=(*stages, withdraw(places[-1])))


class PruneWithdraw:
    """Prune early, withdraw later: the pair that VTW's authors suggest and DyVTE publishes."""

    name = "prune_withdraw"
    source = "FastV, then VTW; compare DyVTE+FastV (arXiv 2411.19628)"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return both layers, the share and the scorer."""
        layers = layers_of(facts)
        return {
            "first": Parameter(nearest(layers, 2), some(layers, 6)),
            "keep": Parameter(0.5, (0.5, 0.25, 0.125)),
            "layer": Parameter(nearest(layers, facts.num_layers / 2), some(layers, 8)),
            "scorer": Parameter("text_to_visual", ("text_to_visual", "text_relevance", "uniform")),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy | None:
        """Return the pruning and the withdrawal."""
        if chosen["layer"] <= chosen["first"]:
            return None
        return Policy(stages=(prune(chosen["first"], chosen["keep"], chosen["scorer"]), withdraw(chosen["layer"])))


def _places(facts: ModelFacts, count: int, span: float) -> list[int] | None:
    layers = layers_of(facts)
    places = [nearest(layers, (number + 1) * span * facts.num_layers / (count + 1)) for number in range(count)]
    return places if len(set(places)) == count else None
