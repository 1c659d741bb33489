"""`apply_policy`: run an unmodified model under a policy."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import nn

from vtw_search.adapters import find_adapter
from vtw_search.errors import PolicyError, PolicyFileError, RuntimeUseError
from vtw_search.facts import ModelFacts
from vtw_search.operators import find_operator
from vtw_search.policies import Policy, PolicySet
from vtw_search.runtime.removal import TokenRemoval

SUPPORTED_ATTENTION = ("eager", "sdpa")
_active_models: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@dataclass(frozen=True)
class ActivePolicy:
    """What `apply_policy` put on a model."""

    policy: Policy
    facts: ModelFacts


@contextmanager
def apply_policy(model: nn.Module, policies: Policy | PolicySet, task: str | None = None) -> Iterator[ActivePolicy]:
    """Run `model` under a policy inside a `with` block; the model is as before afterwards, also after an exception.

    Original position ids are kept, so text logits equal those of the full-length run in which the removed tokens are
    masked from layer K on. Returned logits are shorter than the input: address positions from the end.

    Args:
        model: a supported image-text-to-text model, as `from_pretrained` returns it.
        policies: one policy, or the content of a policy file.
        task: which policy of the file to take; an unknown task gets the file's default, with a warning.

    Raises:
        ModelError: the family is not supported.
        PolicyError, PolicyFileError: the policy breaks a rule or is for another model.
        RuntimeUseError: a policy is already active on the model, or its attention implementation is not supported.
    """
    adapter = find_adapter(model)
    facts = adapter.facts(model)
    if isinstance(policies, PolicySet):
        _check_model(policies, facts)
        policy = policies.for_task(task)
    else:
        policy = policies
    check_policy(policy, facts)
    _check_use(model, facts)
    _active_models.add(model)
    with ExitStack() as stack:
        stack.callback(_active_models.discard, model)
        for stage in policy.stages:
            if stage.layer < facts.num_layers:
                TokenRemoval(model, adapter, find_operator(stage.operator), stage.layer).register(stack)
        yield ActivePolicy(policy, facts)


def check_policy(policy: Policy, facts: ModelFacts) -> None:
    """Raise PolicyError unless every operator exists, every layer is supported and the order of stages is possible."""
    reached = 0
    for position, stage in enumerate(policy.stages):
        if not facts.first_layer <= stage.layer <= facts.last_layer:
            raise PolicyError(
                f"a layer of this {facts.fingerprint.type} model must lie in {facts.first_layer}..{facts.last_layer}",
                value=stage.layer,
                remedy=f"K = {facts.num_layers} keeps every token",
            )
        if stage.layer < reached:
            raise PolicyError("stages must be ordered by layer", value=policy.label(), remedy="sort them")
        last = position == len(policy.stages) - 1
        if not last and not find_operator(stage.operator).may_be_followed:
            raise PolicyError(
                f"no stage may follow {stage.operator!r}", value=policy.label(), remedy="remove what follows"
            )
        find_operator(stage.operator)
        reached = stage.layer


def _check_model(policies: PolicySet, facts: ModelFacts) -> None:
    wanted, found = policies.model, facts.fingerprint
    if not wanted.same_shape(found):
        remedy = "load the model that the file names, or search a policy for this one"
        raise PolicyFileError(f"the policy file is for {wanted.describe()}", value=found.describe(), remedy=remedy)


def _check_use(model: nn.Module, facts: ModelFacts) -> None:
    if model in _active_models:
        remedy = "leave the first `with apply_policy(...)` block before entering another"
        raise RuntimeUseError("one policy at a time may be active on a model", remedy=remedy)
    if facts.attention not in SUPPORTED_ATTENTION:
        remedy = f"load the model with attn_implementation one of {', '.join(SUPPORTED_ATTENTION)}"
        raise RuntimeUseError("the attention implementation must be supported", value=facts.attention, remedy=remedy)
