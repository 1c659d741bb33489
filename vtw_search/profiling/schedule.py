"""How many tokens enter each decoder layer under a policy: what macs, cache sizes and times depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vtw_search.adapters import Adapter
from vtw_search.errors import PolicyError
from vtw_search.operators import Request, find_operator
from vtw_search.policies import Policy, Stage
from vtw_search.scorers import Shape, complete, complete_options, find_scorer
from vtw_search.tokens import Grid, TokenLayout, subject

Schedule = tuple[int, ...]


def visual_counts(policy: Policy, visual: int, grids: Sequence[Grid] = ()) -> list[int] | None:
    """Return how many of a row's `visual` tokens are left after each stage; None where only the data tell.

    Args:
        policy: whose stages act.
        visual: visual tokens of the row.
        grids: of its visual blocks, for operators that work on grids.

    Raises:
        PolicyError: an operator works on grids, and none were given.
    """
    counts: list[int] = []
    for stage in policy.stages:
        operator = find_operator(stage.operator)
        if operator.keeps == "share" and not grids:
            remedy = "pass the grids of the visual blocks"
            raise PolicyError(f"how many tokens {operator.name!r} leaves depends on grids", remedy=remedy)
        left = left_by(stage, counts[-1] if counts else visual, grids)
        if left is None:
            return None
        counts.append(left)
    return counts


def left_by(stage: Stage, visual: int, grids: Sequence[Grid] = ()) -> int | None:
    """Return how many of a row's `visual` tokens a stage leaves, or None where only the data tell."""
    operator = find_operator(stage.operator)
    options = complete(f"operator {operator.name!r}", operator.options, stage.options)
    return operator.left(visual, Request(stage.keep, grids=grids, options=options))


def tokens_per_layer(
    policy: Policy, layout: TokenLayout, layers: int, grids: Sequence[Grid] = (), left: Sequence[int] | None = None
) -> Schedule:
    """Return the tokens that enter each of `layers` decoder layers, for a layout of one row without padding.

    Args:
        policy: whose stages act.
        layout: of the row.
        layers: L.
        grids: of its visual blocks, for operators that work on grids.
        left: visual tokens after each stage as they were measured, for budgets that the scores decide.

    Raises:
        PolicyError: the scores decide, and `left` was not given.
    """
    visual = int(subject(layout.visual, ~layout.padding).sum())
    stay = layout.visual.shape[1] - visual
    return tuple(stay + count for count in _visual_per_layer(policy, visual, layers, grids, left))


def _visual_per_layer(
    policy: Policy, visual: int, layers: int, grids: Sequence[Grid], left: Sequence[int] | None = None
) -> list[int]:
    counts = visual_counts(policy, visual, grids) if left is None else left
    if counts is None:
        remedy = "measure the policy on samples first"
        raise PolicyError("how many tokens stay is known from data alone", value=policy.label(), remedy=remedy)
    tokens = [visual] * layers
    for stage, count in zip(policy.stages, counts, strict=True):
        tokens[stage.layer :] = [min(visual, count)] * max(0, layers - stage.layer)
    return tokens


def mean_over_depth(policy: Policy, visual: int, layers: int, grids: Sequence[Grid] = ()) -> float:
    """Return the mean number of visual tokens per layer, which papers quote; PolicyError where scores decide."""
    return sum(_visual_per_layer(policy, visual, layers, grids)) / layers


def scorer_shape(adapter: Adapter, model: Any, visual: torch.Tensor) -> Shape:
    """Return the sizes that a scorer's cost depends on, for a prompt of one row before any stage.

    Args:
        adapter, model: on any device.
        visual: (1, T) bool, true at visual tokens.
    """
    tower, config = adapter.vision_tower(model), model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    may_leave = subject(visual, torch.ones_like(visual))
    behind = int((may_leave.flip(1).cumsum(dim=1) == 0).sum())
    total, seen = visual.shape[1], int(may_leave.sum())
    if tower is None:
        return Shape(total, seen, behind, width)
    patches, images = tower.grid.tokens + tower.class_tokens, -(-int(visual.sum()) // tower.tokens)
    vision_width = model.config.vision_config.hidden_size
    return Shape(total, seen, behind, width, images, patches, vision_width, tower.layers)


def scorer_macs(policy: Policy, tokens: Sequence[int], shape: Shape) -> list[int]:
    """Return the macs that choosing costs, at the layer whose output is chosen from.

    Args:
        policy: whose stages act.
        tokens: per decoder layer, as `tokens_per_layer` returns them.
        shape: of the prompt before any stage, and of the tower, as `scorer_shape` returns it.
    """
    macs = [0] * len(tokens)
    text = shape.tokens - shape.visual
    for stage in policy.stages:
        if stage.scorer is not None and stage.layer < len(tokens):
            scorer = find_scorer(stage.scorer.name)
            there = tokens[stage.layer - 1] if stage.layer else shape.tokens
            at_hand = Shape(
                there, there - text, shape.instruction, shape.width, shape.images, shape.patches, shape.vision_width,
                shape.vision_layers,
            )  # fmt: skip
            macs[max(stage.layer - 1, 0)] += scorer.macs(at_hand, complete_options(scorer, stage.scorer.options))
    return macs
