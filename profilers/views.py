"""The conventions in which papers print what a decoder costs, by name, so that their tables can be reproduced.

Three things differ between papers and none of them is usually said: whether a multiply-add counts once or twice,
whether text tokens count, and whether a gated feed-forward network has three matrices or is taken for two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from profilers.closed_form import layer_macs
from profilers.shapes import FeedForwardShape, LayerShape, ModelShape


@dataclass(frozen=True)
class View:
    """One paper's way to count: decoder layers only, every query with every key.

    Attributes:
        name: how it is asked for.
        unit: what is printed; `flops` are 2 x `macs`.
        visual_only: whether text tokens are left out.
        two_matrices: whether a gated feed-forward network counts as two matrices.
        source: where the formula is.
    """

    name: str
    unit: str
    visual_only: bool
    two_matrices: bool
    source: str

    def count(self, shape: ModelShape, tokens_per_layer: Sequence[int], text_tokens: int) -> int:
        """Return the number that the paper would print, in `unit`.

        Args:
            shape: the model.
            tokens_per_layer: tokens that enter each decoder layer, text and visual.
            text_tokens: how many of them are text.
        """
        left_out = text_tokens if self.visual_only else 0
        layers = zip(shape.layers, tokens_per_layer, strict=True)
        macs = sum(layer_macs(self._seen(layer), count - left_out) for layer, count in layers)
        return macs * {"macs": 1, "flops": 2}[self.unit]

    def _seen(self, layer: LayerShape) -> LayerShape:
        if not self.two_matrices:
            return layer
        plain = tuple(FeedForwardShape(each.inputs, each.intermediate, gated=False) for each in layer.feed_forward)
        return replace(layer, feed_forward=plain)


VIEWS: Final = {
    view.name: view
    for view in (
        View("shortv", "flops", False, False, "ShortV (arXiv 2504.00502): 2n(4h + 3m)h + 4n^2 h per layer"),
        View("yopo", "flops", True, False, "YOPO: L (8Nd^2 + 4N^2 d + 6Ndm) on visual tokens"),
        View("pyramiddrop", "macs", True, False, "PyramidDrop: half of YOPO's"),
        View("himap", "macs", True, True, "HiMAP, FastV: 4nd^2 + 2n^2 d + 2ndm per layer on visual tokens"),
    )
}
"""Views by name."""
