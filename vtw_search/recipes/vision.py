"""Recipes that act before the decoder, alone or first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy
from vtw_search.recipes.base import SHARES, Parameter, before_decoder, layers_of, nearest, positions, prune, some


class VtcCls:
    """The patches that the class token attends to."""

    name = "vtc_cls"
    source = "VTC-CLS (arXiv 2412.05819): 256, 128 or 64 of 576 tokens; the range of tower layers is not published"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return the share, the first tower layer of the sum, counted from the end, and the positions."""
        first = [-layer for layer in (2, 4, 8, 16) if layer <= max(facts.vision_layers, 2)]
        return {
            "keep": Parameter(128 / 576, (256 / 576, 128 / 576, 64 / 576)),
            "first": Parameter(-2, first),
            "position": positions(facts, "recount"),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy:
        """Return the selection."""
        keep, position, first = chosen["keep"], chosen["position"], chosen["first"]
        return Policy(stages=(before_decoder("select", keep, position, "cls_attention", first=first),))


class FoPru:
    """The patches, or rows of patches, that receive most attention in the tower."""

    name = "fopru"
    source = "FoPru (arXiv 2411.14164): a quarter of the tokens, by rank or by row"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return share, layout, whose attention counts (the class token's where there is one), and positions."""
        sources = ("all",) if "class_token" in facts.missing else ("all", "cls")
        return {
            "keep": Parameter(0.25, SHARES),
            "layout": Parameter("rank", ("rank", "row")),
            "source": Parameter("all", sources),
            "position": positions(facts, "recount"),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy:
        """Return the selection."""
        options = {"layout": chosen["layout"], "source": chosen["source"]}
        stage = before_decoder("select", chosen["keep"], chosen["position"], "vision_received", **options)
        return Policy(stages=(stage,))


class ImageTextInteraction:
    """As many patches as stand before the knee of their similarity to the class token, then a pruning by the text."""

    name = "image_text_interaction"
    source = "Sparsity Meets Similarity (arXiv 2409.01162): about 22 % of the tokens; layer and share are not published"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return the budget, the layer of the second pruning and its share, and the positions."""
        layers = layers_of(facts)
        return {
            "budget": Parameter("knee", ("knee", "second_difference", "lof")),
            "layer": Parameter(nearest(layers, 2), some(layers, 6)),
            "keep": Parameter(0.5, (0.75, 0.5, 0.25)),
            "position": positions(facts, "recount"),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy:
        """Return the selection and the pruning."""
        first = before_decoder("select", chosen["budget"], chosen["position"], "cls_similarity")
        return Policy(stages=(first, prune(chosen["layer"], chosen["keep"], "text_relevance")))


class Random:
    """Random tokens stay: what every scorer has to beat."""

    name = "random"
    source = "a baseline; at layer 0 before the decoder where the model allows it"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return the layer, the share, the seed and, before the decoder, the positions."""
        layers = [*([] if "before_decoder" in facts.missing else [0]), *layers_of(facts)]
        return {
            "layer": Parameter(layers[0], some(layers, 6)),
            "keep": Parameter(0.25, SHARES),
            "seed": Parameter(0, (0, 1, 2)),
            "position": positions(facts, "keep"),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy | None:
        """Return the pruning or selection; inside the decoder every token keeps its position."""
        layer, keep, position, seed = (chosen[name] for name in ("layer", "keep", "position", "seed"))
        if layer:
            return Policy(stages=(prune(layer, keep, "random", seed=seed),)) if position == "keep" else None
        return Policy(stages=(before_decoder("select", keep, position, "random", seed=seed),))


class Downsample:
    """A coarser grid, the same for every image: the other baseline."""

    name = "downsample"
    source = "a baseline: grid pooling or striding before the decoder"

    def parameters(self, facts: ModelFacts) -> Mapping[str, Parameter]:
        """Return the share of the tokens, how cells are made, and the positions: a cell's first, or new ones."""
        shares = tuple((side / 8) ** 2 for side in (7, 6, 5, 4, 3, 2, 1))
        return {
            "keep": Parameter(0.25, shares),
            "mode": Parameter("mean", ("mean", "stride")),
            "position": positions(facts, "keep"),
        }

    def policy(self, facts: ModelFacts, chosen: Mapping[str, Any]) -> Policy:
        """Return the down-sampling."""
        keep, position, mode = chosen["keep"], chosen["position"], chosen["mode"]
        return Policy(stages=(before_decoder("downsample", keep, position, mode=mode),))
