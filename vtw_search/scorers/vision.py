"""Scorers that read the vision tower; they know nothing of the question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vtw_search.errors import PolicyError
from vtw_search.scorers.base import PlainScorer, Reads, Shape, View, VisionNeeds


class ClsAttention(PlainScorer):
    """Attention of the class token on each patch, summed over tower layers `first`..L-2 (VTC-CLS, arXiv 2412.05819).

    The last layer is left out, since LLaVA takes its features before it. `first` counts from the end when negative, as
    in the paper's "last layers up to the penultimate".
    """

    name = "cls_attention"
    reads: Reads = "vision"
    options: Mapping[str, Any] = {"first": -2}

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return the summed attention."""
        assert view.vision is not None
        rows = [view.vision.cls_attention(layer) for layer in _range(view.vision.layers, options["first"])]
        return torch.stack(rows).sum(dim=0)

    def vision_needs(self, layers: int, options: Mapping[str, Any]) -> VisionNeeds:
        """Return the class-token rows of the layers."""
        return VisionNeeds(cls_layers=frozenset(_range(layers, options["first"])))

    def macs(self, shape: Shape, options: Mapping[str, Any]) -> int:
        """Return one query per layer and image."""
        return len(_range(shape.vision_layers, options["first"])) * shape.images * shape.patches * shape.vision_width


class VisionReceived(PlainScorer):
    """Attention that each patch receives in one tower layer (FoPru, arXiv 2411.14164).

    `layout=rank` ranks single tokens; `layout=row` gives every token of a row of the grid the row's mean, so that whole
    rows stay. `source=cls` takes the class token's row instead. The paper's layer and reduction are not public; the
    penultimate layer is where LLaVA takes its features.
    """

    name = "vision_received"
    reads: Reads = "vision"
    options: Mapping[str, Any] = {"layer": -2, "layout": ("rank", "row"), "source": ("all", "cls")}

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return the attention of one layer."""
        vision = view.vision
        assert vision is not None
        layer = options["layer"] % vision.layers
        read = vision.cls_attention if options["source"] == "cls" else vision.received_attention
        return read(layer, by_row=options["layout"] == "row")

    def vision_needs(self, layers: int, options: Mapping[str, Any]) -> VisionNeeds:
        """Return the attention of one layer."""
        chosen = frozenset({options["layer"] % layers})
        return VisionNeeds(cls_layers=chosen) if options["source"] == "cls" else VisionNeeds(received_layers=chosen)

    def macs(self, shape: Shape, options: Mapping[str, Any]) -> int:
        """Return queries x patches x width of one layer."""
        queries = 1 if options["source"] == "cls" else shape.patches
        return shape.images * queries * shape.patches * shape.vision_width


class ClsSimilarity(PlainScorer):
    """Cosine similarity of each patch to the class token, at the features that the projector takes.

    The first step of "Sparsity Meets Similarity" (arXiv 2409.01162), whose budget is the knee of the sorted curve.
    """

    name = "cls_similarity"
    reads: Reads = "vision"

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return the similarity."""
        assert view.vision is not None
        return view.vision.cls_similarity()

    def vision_needs(self, layers: int, options: Mapping[str, Any]) -> VisionNeeds:
        """Return the similarity."""
        return VisionNeeds(similarity=True)

    def macs(self, shape: Shape, options: Mapping[str, Any]) -> int:
        """Return one dot product per patch."""
        return shape.images * shape.patches * shape.vision_width


def _range(layers: int, first: int) -> range:
    """Return the layers of the sum; PolicyError where there are none."""
    found = range(first % layers, layers - 1) if layers else range(0)
    if layers and not (found and -layers <= first < layers):
        remedy = f"-2 is the penultimate of the tower's {layers} layers alone"
        raise PolicyError("`first` must be a layer before the last", value=first, remedy=remedy)
    return found
