"""How many tokens enter each decoder layer under a policy: what macs, cache sizes and times depend on."""

from __future__ import annotations

from vtw_search.operators import find_operator
from vtw_search.policies import Policy
from vtw_search.tokens import TokenLayout

Schedule = tuple[int, ...]


def tokens_per_layer(policy: Policy, layout: TokenLayout, layers: int) -> Schedule:
    """Return the tokens that enter each of `layers` decoder layers, for a layout of one row without padding."""
    tokens = [layout.visual.shape[1]] * layers
    for stage in policy.stages:
        left = int(find_operator(stage.operator).keep(layout).sum())
        tokens[stage.layer :] = [left] * (layers - stage.layer)
    return tuple(tokens)
