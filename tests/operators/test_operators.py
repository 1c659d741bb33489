"""Which tokens operators keep, against counting by hand; budgets against curves with a planted knee."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vtw_search.errors import RuntimeUseError
from vtw_search.operators import OPERATORS, Request, find_operator, keep_count, keep_counts
from vtw_search.operators.budget import budget_counts, knee, lof, second_difference
from vtw_search.tokens import Grid, TokenLayout

layouts = st.integers(1, 3).flatmap(
    lambda rows: st.lists(st.lists(st.sampled_from("vtp"), min_size=9, max_size=9), min_size=rows, max_size=rows)
)
shares = st.floats(0.01, 1.0)


def layout_of(rows: list[list[str]]) -> TokenLayout:
    return TokenLayout(
        torch.tensor([[kind == "v" for kind in row] for row in rows]),
        torch.tensor([[kind == "p" for kind in row] for row in rows]),
    )


@given(layouts, st.one_of(shares, st.integers(1, 12)), st.integers(0, 99))
def test_pruning_keeps_text_and_the_best_visual_tokens(rows: list[list[str]], keep: float | int, seed: int) -> None:
    layout = layout_of(rows)
    scores = torch.randint(0, 4, layout.visual.shape, generator=torch.Generator().manual_seed(seed)).float()
    kept = find_operator("prune").keep(layout, Request(keep, scores))
    for row, kinds in enumerate(rows):
        places = [place for place, kind in enumerate(kinds) if kind == "v"]
        wanted = min(len(places), max(1, math.floor(keep * len(places) + 0.5) if isinstance(keep, float) else keep))
        best = sorted(places, key=lambda place: (-float(scores[row, place]), place))[:wanted]
        text = [place for place, kind in enumerate(kinds) if kind == "t"]
        assert sorted(best + text) == kept[row].nonzero()[:, 0].tolist()
        assert find_operator("prune").left(len(places), Request(keep)) == len(best)


@pytest.mark.parametrize("name", [name for name, operator in OPERATORS.items() if operator.in_parts])
@given(rows=layouts, cut=st.integers(1, 8))
def test_operators_that_act_in_parts_leave_the_same_of_the_whole(name: str, rows: list[list[str]], cut: int) -> None:
    operator, whole = find_operator(name), layout_of(rows)
    parts = [layout_of([row[:cut] for row in rows]), layout_of([row[cut:] for row in rows])]
    assert torch.cat([operator.keep(part, Request()) for part in parts], dim=1).equal(operator.keep(whole, Request()))


@given(layouts, st.integers(0, 99))
def test_a_share_of_one_keeps_everything_and_kept_sets_are_nested(rows: list[list[str]], seed: int) -> None:
    layout, operator = layout_of(rows), find_operator("prune")
    scores = torch.rand(layout.visual.shape, generator=torch.Generator().manual_seed(seed))
    sets = [operator.keep(layout, Request(count, scores)) for count in range(1, 10)]
    assert torch.equal(operator.keep(layout, Request(1.0, scores)), ~layout.padding)
    assert all(bool((small <= large).all()) for small, large in pairwise(sets))


@given(st.integers(0, 700), st.one_of(shares, st.integers(1, 700)))
def test_counts_of_rows_follow_the_one_rounding_rule(visual: int, keep: float | int) -> None:
    assert keep_counts(keep, torch.tensor([visual])).tolist() == [keep_count(keep, visual)]


def test_himap_and_fastv_counts() -> None:
    assert keep_count(0.5, 576) == 288
    assert keep_count(0.25, 288) == 72
    assert (keep_count(0.5, 5), keep_count(0.25, 2), keep_count(0.001, 9)) == (3, 1, 1)


@pytest.mark.parametrize("budget", [knee, second_difference])
@pytest.mark.parametrize("head", [1, 3, 10])
def test_budgets_find_a_planted_knee(budget: object, head: int) -> None:
    step = torch.tensor([1.0] * head + [0.0] * (40 - head))
    assert budget(step) == head  # type: ignore[operator]
    assert budget(step * 7 - 3) == head  # type: ignore[operator]


def test_budgets_keep_everything_where_there_is_no_knee() -> None:
    for budget in (knee, second_difference):
        assert budget(torch.ones(9)) == 9
        assert budget(-(torch.arange(9.0) ** 2)) == 9  # falls ever faster: concave
    assert knee(torch.exp(-torch.arange(60.0) / 5)) in range(8, 20)


def test_outliers_by_local_density() -> None:
    scores = torch.cat([torch.tensor([9.0, 7.0]), torch.linspace(1.0, 0.9, 60)])
    assert lof(scores) == 2
    assert lof(torch.tensor([1.0, 0.5])) == 2


def test_rows_without_visual_tokens_have_no_budget() -> None:
    visual = torch.tensor([[True, True, True, True], [False, False, False, False]])
    scores = torch.tensor([[5.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert budget_counts("knee", scores, visual).tolist() == [1, 0]


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.25, 1 / 36])
@pytest.mark.parametrize("mode", ["mean", "stride"])
def test_downsampling_equals_pooling_of_the_grid(keep: float, mode: str) -> None:
    operator = find_operator("downsample")
    # Two images in the first row, one in the second; text before, between and after.
    kinds = ["t"] + ["v"] * 24 + ["t"] + ["v"] * 24 + ["t"]
    layout = layout_of([kinds, ["p"] * 25 + ["t"] + ["v"] * 24 + ["t"]])
    grid = Grid(4, 6)
    request = Request(keep, None, [grid] * 3, {"mode": mode})
    hidden = torch.randn(2, 51, 5)
    kept, merged = operator.keep(layout, request), operator.merge(hidden, layout, request)
    rows, columns = (max(1, math.floor(side * math.sqrt(keep) + 0.5)) for side in (4, 6))
    for row, start in ((0, 1), (0, 26), (1, 26)):
        image = hidden[row, start : start + 24].T.reshape(5, 4, 6)
        if mode == "mean":
            expected = functional.adaptive_avg_pool2d(image, (rows, columns))
        else:
            expected = image[:, [r * 4 // rows for r in range(rows)]][:, :, [c * 6 // columns for c in range(columns)]]
        own = torch.zeros(51, dtype=torch.bool)
        own[start : start + 24] = True
        assert torch.allclose(merged[row][kept[row] & own], expected.flatten(1).T, atol=1e-6)
    asked = Request(keep, grids=[grid] * 2)
    assert operator.left(48, asked) == 2 * rows * columns == int((kept & layout.visual)[0].sum())
    assert torch.equal(merged[~layout.visual], hidden[~layout.visual])


def test_tokens_that_are_no_whole_grids_are_refused() -> None:
    with pytest.raises(RuntimeUseError, match="whole grids"):
        find_operator("downsample").keep(layout_of([["v"] * 9]), Request(0.5, None, [Grid(2, 2)], {"mode": "mean"}))


@given(layouts)
def test_no_operator_removes_text_or_keeps_padding(rows: list[list[str]]) -> None:
    layout = layout_of(rows)
    scores = torch.zeros(layout.visual.shape)
    for name in ("withdraw", "prune", "select"):
        kept = OPERATORS[name].keep(layout, Request(1, scores))
        assert not bool((kept & layout.padding).any())
        assert bool((kept | layout.visual | layout.padding).all())
