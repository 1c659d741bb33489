"""What a search may choose from."""

from __future__ import annotations

from vtw_search.errors import ConfigError
from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy


def withdrawal_candidates(facts: ModelFacts, first_layer: int | None, last_layer: int | None) -> list[Policy]:
    """Return keep-all, then a withdrawal at every K of the range; K = L is keep-all and not listed again.

    Args:
        facts: of the model.
        first_layer, last_layer: narrow the range of K; None takes the model's own.

    Raises:
        ConfigError: the range does not fit the model.
    """
    low = facts.first_layer if first_layer is None else first_layer
    high = min(facts.last_layer, facts.num_layers - 1) if last_layer is None else last_layer
    if not facts.first_layer <= low <= high < facts.num_layers:
        raise ConfigError(
            f"space.first_layer..space.last_layer must lie in {facts.first_layer}..{facts.num_layers - 1}",
            value=f"{low}..{high}",
            remedy=f"this model has {facts.num_layers} decoder layers; K = {facts.num_layers} is keep-all",
        )
    return [Policy.keep_all(), *(Policy.withdraw(layer=layer) for layer in range(low, high + 1))]


def policy_layer(policy: Policy, layers: int) -> int:
    """Return K of a policy: its first stage's layer, or L (`layers`) for keep-all."""
    return policy.stages[0].layer if policy.stages else layers
