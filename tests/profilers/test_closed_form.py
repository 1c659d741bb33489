"""Formulas against brute force over pairs of tokens, and windows of towers against cutting a grid by hand."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from profilers.closed_form import (
    dead_macs,
    decode_layer_macs,
    layer_macs,
    layer_parts,
    pairs,
    patch_macs,
    projector_macs,
    tower_layer_macs,
    tower_macs,
    window_sizes,
)
from profilers.shapes import (
    ExpertsShape,
    FeedForwardShape,
    PoolingHeadShape,
    Projection,
    ProjectorShape,
    ScoreProduct,
    TowerShape,
)
from tests.profilers.shapes import llama_layer


def seen_by_mask(queries: int, keys: int, window: int | None) -> int:
    count = 0
    for query in range(keys - queries, keys):
        count += sum(key <= query and (window is None or key > query - window) for key in range(keys))
    return count


@given(queries=st.integers(1, 12), cached=st.integers(0, 12), window=st.none() | st.integers(1, 15))
def test_causal_pairs_are_what_a_mask_shows(queries: int, cached: int, window: int | None) -> None:
    keys = queries + cached
    assert pairs(queries, keys, window, "causal") == seen_by_mask(queries, keys, window)
    assert pairs(queries, keys, window) == queries * keys


@given(tokens=st.integers(0, 50), cached=st.integers(0, 50), groups=st.sampled_from([8, 2, 1]))
def test_a_llama_layer(tokens: int, cached: int, groups: int) -> None:
    layer = llama_layer(64, 8, groups, 96)
    linear = 64 * 64 * 2 + 2 * 64 * groups * 8 + 3 * 64 * 96
    assert layer_macs(layer, tokens, cached=cached) == tokens * linear + 2 * 64 * tokens * (tokens + cached)


def test_a_decode_step_reads_no_more_than_a_window() -> None:
    full, sliding = llama_layer(64, 8, 2, 96), llama_layer(64, 8, 2, 96, window=10)
    assert decode_layer_macs(full, 9) == decode_layer_macs(sliding, 9)
    assert decode_layer_macs(sliding, 500) == decode_layer_macs(sliding, 9) < decode_layer_macs(full, 10)


def test_experts_take_their_own_kind_of_token() -> None:
    expert, router = FeedForwardShape(64, 16, gated=True), Projection("router", 64, 4)
    text, visual = (ExpertsShape(router, expert, per_token, group) for per_token, group in ((2, "text"), (1, "visual")))
    layer = replace(llama_layer(64, 8, 8, 96), feed_forward=(), experts=(text, visual))
    parts = layer_parts(layer, 10, visual=3)
    assert parts["feed_forward"] == 7 * (64 * 4 + 2 * 3 * 64 * 16) + 3 * (64 * 4 + 3 * 64 * 16)


def test_further_products_count() -> None:
    plain = llama_layer(64, 8, 8, 96)
    scored = replace(plain, attention=replace(plain.attention, scores=(ScoreProduct("indexer", 2, 5),)))
    more = replace(plain, extras=(Projection("gate", 64, 3, calls=2),))
    assert layer_macs(scored, 7) - layer_macs(plain, 7) == 7 * 7 * 2 * 5
    assert layer_macs(more, 7) - layer_macs(plain, 7) == 7 * 64 * 3 * 2


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), side=st.integers(1, 5))
def test_windows_are_the_cells_of_a_grid(rows: int, columns: int, side: int) -> None:
    cells: dict[tuple[int, int], int] = {}
    for row in range(rows):
        for column in range(columns):
            cells[row // side, column // side] = cells.get((row // side, column // side), 0) + 1
    assert sorted(window_sizes((rows, columns), side)) == sorted(cells.values())


def test_a_tower_with_windows_a_class_token_and_dead_parts() -> None:
    layer = llama_layer(16, 2, 2, 24)
    tower = TowerShape(
        Projection("patch", 12, 16), (layer,) * 3, extra_tokens=1, window_side=2, windowed=frozenset({1}),
        live_layers=2, head=PoolingHeadShape(16, 24),
    )  # fmt: skip
    full, windows = layer_macs(layer, 13), 4 * layer_macs(layer, 2) + 4 * 0
    windows = layer_macs(layer, 4) * 2 + layer_macs(layer, 2) * 2
    assert tower_layer_macs(tower, [(3, 4)]) == (full, windows, full)
    head = (2 + 2 * 13) * 16 * 16 + 2 * 13 * 16 + 2 * 16 * 24
    assert tower.dead_layers == (2,)
    assert dead_macs(tower, [(3, 4)]) == full + head
    assert tower_macs(tower, [(3, 4)] * 2) == 2 * (12 * 12 * 16 + 2 * full + windows + head)


def test_a_projector_meets_merged_patches() -> None:
    projector = ProjectorShape((Projection("one", 8, 4), Projection("two", 4, 2)), merge=4, extra_rows=1)
    assert projector_macs(projector, [(4, 4), (2, 2)]) == (4 + 1 + 1 + 1) * (8 * 4 + 4 * 2)


def test_joined_pictures_are_padded_and_meet_each_other() -> None:
    layer = llama_layer(16, 2, 2, 24)
    apart = TowerShape(Projection("patch", 12, 16), (layer,))
    joined = replace(apart, joined=True)
    grids = [(3, 4), (5, 2)]
    assert tower_layer_macs(apart, grids) == (layer_macs(layer, 12) + layer_macs(layer, 10),)
    assert tower_layer_macs(joined, grids) == (layer_macs(layer, 22),)
    assert patch_macs(apart, grids) == (12 + 10) * 12 * 16
    assert patch_macs(joined, grids) == 2 * (5 * 4) * 12 * 16
    assert tower_macs(joined, [(3, 4)]) == tower_macs(apart, [(3, 4)])
    assert tower_macs(joined, []) == 0
