"""Multiply-adds by formula, from a shape record.

Per token a matrix costs inputs x outputs. Attention costs heads x queries x keys x (key width + value width): one
product for the scores and one for the values (Vaswani et al. 2017, arXiv 1706.03762, table 1). Norms, rotary embedding,
softmax and activations are no products of matrices and cost nothing here; `profilers.aten` names them.
"""

from collections.abc import Sequence
from typing import Literal

from profilers.shapes import (
    AttentionShape,
    ExpertsShape,
    FeedForwardShape,
    Grid,
    LayerShape,
    PoolingHeadShape,
    ProjectorShape,
    TowerShape,
)

Convention = Literal["square", "causal"]
"""`square`: every query meets every key, as kernels with a mask compute; `causal`: only pairs that a mask shows."""


def projection_macs(inputs: int, outputs: int, calls: int = 1) -> int:
    """Return the macs of one token with a matrix."""
    return inputs * outputs * calls


def pairs(queries: int, keys: int, window: int | None = None, convention: Convention = "square") -> int:
    """Return how many (query, key) pairs attention computes; the queries are the last of the `keys` positions.

    `causal` is what a kernel without masked blocks would do: a query sees itself, what is before it, and no more than
    `window` positions.
    """
    if convention == "square":
        return queries * keys
    first = keys - queries + 1
    if window is None or window >= keys:
        return queries * (first + keys) // 2
    growing = max(0, window - first)
    return growing * (first + window - 1) // 2 + (queries - growing) * min(window, keys)


def attention_macs(shape: AttentionShape, queries: int, keys: int, convention: Convention = "square") -> int:
    """Return the macs of self-attention, projections included."""
    linear = sum(projection_macs(each.inputs, each.outputs, each.calls) for each in shape.projections)
    seen = pairs(queries, keys, shape.window, convention)
    indexed = pairs(queries, keys, None, convention) * sum(each.heads * each.width for each in shape.scores)
    return queries * linear + shape.heads * seen * (shape.key_width + shape.value_width) + indexed


def feed_forward_macs(shape: FeedForwardShape) -> int:
    """Return the macs of one token."""
    return (3 if shape.gated else 2) * shape.inputs * shape.intermediate


def experts_macs(shape: ExpertsShape, tokens: int, visual: int) -> int:
    """Return the macs of the tokens that these experts take; `visual` of `tokens` are visual."""
    taken = {"all": tokens, "visual": visual, "text": tokens - visual}[shape.group]
    router = projection_macs(shape.router.inputs, shape.router.outputs, shape.router.calls)
    return taken * (router + shape.per_token * feed_forward_macs(shape.expert))


def layer_parts(
    shape: LayerShape, tokens: int, *, cached: int = 0, visual: int = 0, convention: Convention = "square"
) -> dict[str, int]:
    """Return the macs of one layer by part: attention, feed_forward (experts included) and extras.

    Args:
        shape: the layer.
        tokens: tokens that come in, per row.
        cached: tokens whose keys and values are read from the cache.
        visual: how many of `tokens` are visual; matters where experts take one kind only.
        convention: which pairs of queries and keys count.
    """
    dense = tokens * sum(feed_forward_macs(each) for each in shape.feed_forward)
    return {
        "attention": attention_macs(shape.attention, tokens, tokens + cached, convention),
        "feed_forward": dense + sum(experts_macs(each, tokens, visual) for each in shape.experts),
        "extras": tokens * sum(projection_macs(each.inputs, each.outputs, each.calls) for each in shape.extras),
    }


def layer_macs(
    shape: LayerShape, tokens: int, *, cached: int = 0, visual: int = 0, convention: Convention = "square"
) -> int:
    """Return the macs of one layer; arguments as in `layer_parts`."""
    return sum(layer_parts(shape, tokens, cached=cached, visual=visual, convention=convention).values())


def decode_layer_macs(shape: LayerShape, cached: int) -> int:
    """Return the macs of one layer for the token that follows `cached` tokens; a window bounds what it reads."""
    window = shape.attention.window
    read = cached if window is None else min(cached, window - 1)
    return layer_macs(shape, 1, cached=read)


def tower_layer_macs(shape: TowerShape, grids: Sequence[Grid]) -> tuple[int, ...]:
    """Return the macs of each layer of a tower, dead layers included, since they run.

    Args:
        shape: the tower.
        grids: rows and columns of patches of each image, crop or frame. It attends to itself alone; where a call joins
            its pictures, of which these are all, every pair of patches is computed although a mask hides most.
    """
    whole = [rows * columns + shape.extra_tokens for rows, columns in grids]
    whole = [sum(whole)] if shape.joined else whole
    blocks = [size for grid in grids for size in window_sizes(grid, shape.window_side)] if shape.windowed else []
    return tuple(
        sum(layer_macs(layer, size) for size in (blocks if number in shape.windowed else whole))
        for number, layer in enumerate(shape.layers)
    )


def window_sizes(grid: Grid, side: int) -> list[int]:
    """Return the patches of each window that a grid is cut into; windows at the far edges are smaller."""
    rows, columns = (_cut(length, side) for length in grid)
    return [height * width for height in rows for width in columns]


def _cut(length: int, side: int) -> list[int]:
    return [min(side, length - start) for start in range(0, length, side)]


def patch_macs(shape: TowerShape, grids: Sequence[Grid]) -> int:
    """Return the macs of the patch embedding, padding included."""
    if shape.joined and grids:
        grids = [(max(rows for rows, _ in grids), max(columns for _, columns in grids))] * len(grids)
    patches = sum(rows * columns for rows, columns in grids)
    return patches * projection_macs(shape.patch.inputs, shape.patch.outputs, shape.patch.calls)


def tower_macs(shape: TowerShape, grids: Sequence[Grid]) -> int:
    """Return the macs of a tower, dead layers included, since they run."""
    return patch_macs(shape, grids) + sum(tower_layer_macs(shape, grids)) + head_macs(shape, grids)


def head_macs(shape: TowerShape, grids: Sequence[Grid]) -> int:
    """Return the macs of a tower's pooling head."""
    if shape.head is None:
        return 0
    return sum(_pooling(shape.head, rows * columns + shape.extra_tokens) for rows, columns in grids)


def dead_macs(shape: TowerShape, grids: Sequence[Grid]) -> int:
    """Return the macs that run although nothing reads what they compute."""
    layers = tower_layer_macs(shape, grids)
    return sum(layers[number] for number in shape.dead_layers) + head_macs(shape, grids)


def _pooling(head: PoolingHeadShape, keys: int) -> int:
    width = head.hidden
    return (2 + 2 * keys) * width * width + 2 * keys * width + 2 * width * head.intermediate


def projector_macs(shape: ProjectorShape, grids: Sequence[Grid]) -> int:
    """Return the macs of a projector on the patches of some images."""
    rows = sum(height * width // shape.merge + shape.extra_rows for height, width in grids)
    return rows * sum(projection_macs(each.inputs, each.outputs, each.calls) for each in shape.projections)
