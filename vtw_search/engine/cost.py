"""What the one pass costs, in layer-tokens: tokens times the decoder layers that they go through. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vtw_search.engine.trie import Node, build_trie
from vtw_search.runtime.stages import ReadyStage


@dataclass(frozen=True)
class Extent:
    """The tokens of one sample, the answer that candidates are forced along included.

    Attributes:
        shared: those before the first image, which only the reference carries.
        text: all others that are not visual.
        visual: of the image.
    """

    shared: float
    text: float
    visual: float


@dataclass(frozen=True)
class LayerTokens:
    """Layer-tokens of a pass: those of the reference, and those of all branches."""

    reference: float = 0.0
    branches: float = 0.0

    @property
    def total(self) -> float:
        """The reference pass included."""
        return self.reference + self.branches

    def __add__(self, other: LayerTokens) -> LayerTokens:
        return LayerTokens(self.reference + other.reference, self.branches + other.branches)

    def times(self, samples: int) -> LayerTokens:
        """Return the cost of so many samples."""
        return LayerTokens(samples * self.reference, samples * self.branches)


def pass_cost(
    candidates: Sequence[tuple[ReadyStage, ...]], left: Sequence[Sequence[float]], extent: Extent, layers: int
) -> LayerTokens:
    """Return the cost of one pass over one sample; stages that candidates begin with in common are counted once.

    Args:
        candidates: stages of each; keep-all is the reference itself.
        left: per candidate, how many visual tokens each of its stages leaves.
        extent: of the sample.
        layers: L.
    """
    reference = layers * (extent.shared + extent.text + extent.visual)
    branches = sum(_branch(child, 0, left, extent.text, layers) for child in build_trie(candidates).children)
    return LayerTokens(reference, branches)


def _branch(node: Node, depth: int, left: Sequence[Sequence[float]], text: float, layers: int) -> float:
    some_candidate = next(number for each in node.walk() for number in each.candidates)
    own = (node.until(layers) - node.layer) * (text + left[some_candidate][depth])
    return own + sum(_branch(child, depth + 1, left, text, layers) for child in node.children)
