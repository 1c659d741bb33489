"""Down-sampling: the grid of visual tokens is made coarser before the decoder, the same for every image.

Each side of an R x C grid is scaled by sqrt(keep) and rounded half up, at least 1. `mean` averages the tokens of each
cell, with the cells of torch's adaptive average pooling; `stride` takes the first token of each cell. A cell stands
where its first token stood.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from vtw_search.errors import RuntimeUseError
from vtw_search.operators.base import NOTHING_ASKED, Keeps, Request, Site
from vtw_search.operators.budget import Keep
from vtw_search.tokens import Grid, TokenLayout


class Downsample:
    """Uniform grid pooling or striding."""

    name = "downsample"
    scoring_version = 2
    site: Site = "vision"
    keeps: Keeps = "share"
    ranks = False
    may_be_followed = True
    in_parts = False
    options: Mapping[str, Any] = {"mode": ("mean", "stride")}

    def keep(self, layout: TokenLayout, request: Request = NOTHING_ASKED) -> torch.Tensor:
        """Keep the text and the first token of each cell."""
        stays = ~(layout.visual | layout.padding)
        for row, columns, grid in _blocks(layout, request.grids):
            stays[row, columns[_first_tokens(grid, _coarse(grid, request.keep))]] = True
        return stays

    def merge(self, hidden: torch.Tensor, layout: TokenLayout, request: Request) -> torch.Tensor:
        """Give the first token of each cell the cell's mean, unless tokens are only skipped."""
        assert request.options is not None
        if request.options["mode"] == "stride":
            return hidden
        merged = hidden.clone()
        for row, columns, grid in _blocks(layout, request.grids):
            coarse = _coarse(grid, request.keep)
            # (rows * columns, D) -> (D, rows, columns), pooled, and back.
            image = hidden[row, columns].T.reshape(-1, grid.rows, grid.columns)
            pooled = functional.adaptive_avg_pool2d(image, (coarse.rows, coarse.columns))
            merged[row, columns[_first_tokens(grid, coarse)]] = pooled.flatten(1).T
        return merged

    def left(self, visual: int, request: Request = NOTHING_ASKED) -> int:
        """Return the number of cells."""
        return sum(_coarse(grid, request.keep).tokens for grid in request.grids)


def _coarse(grid: Grid, keep: Keep | None) -> Grid:
    assert isinstance(keep, float), "checked when the policy was"
    sides = (max(1, math.floor(side * math.sqrt(keep) + 0.5)) for side in (grid.rows, grid.columns))
    return Grid(*sides)


def _first_tokens(grid: Grid, coarse: Grid) -> torch.Tensor:
    """Return the place of each cell's first token in its block, in order."""
    rows = torch.arange(coarse.rows) * grid.rows // coarse.rows
    columns = torch.arange(coarse.columns) * grid.columns // coarse.columns
    return (rows[:, None] * grid.columns + columns).flatten()


def _blocks(layout: TokenLayout, grids: Sequence[Grid]) -> Iterator[tuple[int, torch.Tensor, Grid]]:
    """Yield (row of the batch, columns of the block's tokens, its grid) of every block."""
    remaining = list(grids)
    for row, visual in enumerate(layout.visual):
        columns = visual.nonzero()[:, 0]
        while len(columns):
            grid = remaining.pop(0) if remaining else None
            if grid is None or grid.tokens > len(columns):
                raise RuntimeUseError(
                    "the visual tokens of a row must be whole grids",
                    value=f"{len(columns)} tokens left for {grid}",
                    remedy="use prune with scorer uniform, which needs no grid",
                )
            yield row, columns[: grid.tokens], grid
            columns = columns[grid.tokens :]
