"""Published tables, reproduced from shape records under the convention of each paper.

Numbers are printed by the papers, or computed in `shared/reference` from their formulas, to the digits given here.
"""

from __future__ import annotations

import pytest

from profilers.shapes import ModelShape
from profilers.views import VIEWS
from tests.profilers.shapes import LLAVA_7B, LLAVA_13B

VISUAL, TEXT = 576, 64


def withdrawn(shape: ModelShape, layer: int) -> list[int]:
    layers = len(shape.layers)
    return [VISUAL + TEXT] * layer + [TEXT] * (layers - layer)


@pytest.mark.parametrize(
    "layer, teraflops",
    [(8, 2.75), (12, 3.71), (15, 4.43), (16, 4.67), (20, 5.63), (24, 6.59), (28, 7.54), (32, 8.50)],
)
def test_the_row_of_vtw_over_k(layer: int, teraflops: float) -> None:
    flops = VIEWS["shortv"].count(LLAVA_7B, withdrawn(LLAVA_7B, layer), TEXT)
    assert round(flops / 1e12, 2) == teraflops


@pytest.mark.parametrize("layer, ratio", [(16, 0.459), (20, 0.549), (24, 0.639), (30, 0.775)])
def test_the_ratios_of_the_13b_model(layer: int, ratio: float) -> None:
    view = VIEWS["shortv"]
    reference = view.count(LLAVA_13B, withdrawn(LLAVA_13B, 40), TEXT)
    assert round(view.count(LLAVA_13B, withdrawn(LLAVA_13B, layer), TEXT) / reference, 3) == ratio
    assert round(reference / 1e12, 2) == 16.58


@pytest.mark.parametrize("shape, teraflops", [(LLAVA_7B, 7.634), (LLAVA_13B, 14.888)])
def test_yopo_and_pyramiddrop_differ_by_two(shape: ModelShape, teraflops: float) -> None:
    tokens = withdrawn(shape, len(shape.layers))
    flops = VIEWS["yopo"].count(shape, tokens, TEXT)
    assert round(flops / 1e12, 3) == teraflops
    assert 2 * VIEWS["pyramiddrop"].count(shape, tokens, TEXT) == flops


@pytest.mark.parametrize(
    "visual_per_layer, teramacs",
    [
        ([576] * 32, 2.986),
        ([576] * 2 + [288] * 6 + [72] * 24, 0.735),
        ([576] * 2 + [288] * 13 + [72] * 17, 0.978),
        ([576] * 2 + [288] * 30, 1.566),
    ],
    ids=["keep-all", "HiMAP for questions", "HiMAP for captions", "FastV"],
)
def test_himap_and_fastv(visual_per_layer: list[int], teramacs: float) -> None:
    tokens = [count + TEXT for count in visual_per_layer]
    assert round(VIEWS["himap"].count(LLAVA_7B, tokens, TEXT) / 1e12, 3) == teramacs


@pytest.mark.parametrize("visual, teraflops", [(144, 1.876), (64, 0.831), (36, 0.467)])
def test_yopo_at_fewer_tokens(visual: int, teraflops: float) -> None:
    assert round(VIEWS["yopo"].count(LLAVA_7B, [visual + TEXT] * 32, TEXT) / 1e12, 3) == teraflops
