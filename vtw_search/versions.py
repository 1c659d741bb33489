"""Which rules numbers come from: the versions of the operators and scorers that a policy uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vtw_search.operators import OPERATORS
from vtw_search.policies import Policy
from vtw_search.scorers import SCORERS

Versions = Mapping[str, int]


def registered_versions() -> dict[str, int]:
    """Return the version of every operator and scorer that is registered, such as `operator prune` -> 1."""
    operators = {f"operator {name}": operator.scoring_version for name, operator in OPERATORS.items()}
    return operators | {f"scorer {name}": scorer.scoring_version for name, scorer in SCORERS.items()}


def rules_of(policy: Policy) -> list[str]:
    """Return the names of the operators and scorers that a policy uses, as `registered_versions` has them."""
    operators = {f"operator {stage.operator}" for stage in policy.stages}
    return sorted(operators | {f"scorer {stage.scorer.name}" for stage in policy.stages if stage.scorer})


def versions_of(*policies: Policy) -> dict[str, int]:
    """Return the versions of the operators and scorers that policies use; one that is not registered has none."""
    registered, used = registered_versions(), {name for policy in policies for name in rules_of(policy)}
    return {name: registered[name] for name in sorted(used & registered.keys())}


def still_hold(versions: Versions, names: Iterable[str] | None = None) -> bool:
    """Tell whether what was measured under `versions`, or under those of `names` alone, would come out the same now."""
    registered = registered_versions()
    return all(versions.get(name) == registered.get(name) for name in (versions if names is None else names))
