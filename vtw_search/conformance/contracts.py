"""The six contracts of the runtime, each as a function from a bench to the largest deviation that it finds.

Before them comes the contract of the adapter, whose answer all six take for granted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from vtw_search.adapters import LayerArguments
from vtw_search.conformance.bench import Bench, ContractError
from vtw_search.conformance.cache_size import check_cache_size
from vtw_search.conformance.probes import Probe
from vtw_search.conformance.visual_tokens import visual_tokens_are_found
from vtw_search.errors import PolicyError, PolicyFileError, RuntimeUseError
from vtw_search.policies import Policy, PolicySet
from vtw_search.runtime import apply_policy, run_under_policy
from vtw_search.runtime.capture import by_name, captured
from vtw_search.runtime.deviation import deviation
from vtw_search.runtime.slicing import gather_tokens, map_tensors

Contract = Callable[[Bench], float]


def keep_all_changes_nothing(bench: Bench) -> float:
    """Keep-all, and input without visual tokens under any policy, are bit-identical to no policy."""
    worst = 0.0
    for probe in bench.probes:
        logits, answer = bench.logits(probe.inputs), bench.generate(probe.inputs)
        for policy in _without_effect(bench, probe):
            with bench.under(policy):
                found, again = bench.logits(probe.inputs), bench.generate(probe.inputs)
            if found.shape != logits.shape or not torch.equal(again.tokens, answer.tokens):
                raise ContractError(f"{policy.label()} changes {probe.name}")
            worst = max(worst, deviation(found, logits), deviation(again.logits, answer.logits))
    if worst > 0:
        raise ContractError(f"logits differ by {worst:.1e}; they must be bit-identical")
    return worst


def removing_equals_masking(bench: Bench) -> float:
    """Text logits equal those of a full-length run in which the visual columns are masked from layer K on."""
    worst = 0.0
    for probe in bench.visual_probes:
        kept = bench.kept(probe)
        wanted = torch.ones_like(kept.index, dtype=torch.bool) if kept.filler is None else ~kept.filler
        for layer in bench.layers:
            with bench.masked(probe, layer):
                full = bench.logits(probe.inputs)
            with bench.under(Policy.withdraw(layer)):
                short = bench.logits(probe.inputs)
            if short.shape[:2] != kept.index.shape:
                raise ContractError(f"{tuple(short.shape[:2])} positions at K = {layer}, not {tuple(kept.index.shape)}")
            expected = gather_tokens(full, kept.index, -2)[wanted]
            worst = max(worst, deviation(short[wanted], expected))
    return worst


def cached_decode_equals_uncached(bench: Bench) -> float:
    """Generation on the shortened cache equals masked generation without one; the cache is as short as it can be.

    A later turn of several tokens equals that turn on the cache of a masked run, which is long.
    """
    worst = 0.0
    for probe in bench.visual_probes:
        for layer in bench.layers:
            with bench.under(Policy.withdraw(layer)):
                found, cache = bench.generate(probe.inputs), bench.cache(probe.inputs)
                turn = bench.second_turn(probe.inputs)
            check_cache_size(bench, probe, layer, cache)
            with bench.masked(probe, layer):
                expected = bench.generate(probe.inputs, found.tokens, cached=False)
                long_turn = bench.second_turn(probe.inputs)
            worst = max(worst, deviation(found.logits, expected.logits), deviation(turn, long_turn))
    if worst > bench.tolerance:
        own = max(_own_deviation(bench, probe) for probe in bench.visual_probes)
        raise ContractError(f"deviation {worst:.1e}; without any policy the model's own is {own:.1e}", worst)
    return worst


def positions_are_kept(bench: Bench) -> float:
    """Layers from K on receive the original positions of the tokens that stay; decoding goes on behind the last."""
    arguments = bench.adapter.layer_arguments
    # Layers behind those that share keys may be given the last token alone by the model itself.
    last, names = bench.stack[min(bench.facts.last_layer, len(bench.stack) - 1)], list(arguments.tokens)
    worst = 0.0
    for probe in bench.visual_probes:
        index = bench.kept(probe).index
        with captured([last]) as plain:
            answer = bench.generate(probe.inputs)
        for layer in bench.layers:
            with bench.under(Policy.withdraw(layer)), captured([last]) as short:
                bench.generate(probe.inputs, answer.tokens)
            full, found = ([_positions(last, call, names) for call in calls[0]] for calls in (plain, short))
            if len(full) != len(found):
                raise ContractError(f"{len(found)} calls of a layer instead of {len(full)}")
            worst = max(worst, _difference([_gathered(full[0], arguments, index), *full[1:]], found))
    if worst > 0:
        raise ContractError(f"positions differ by {worst:.1e}; they must be the original ones")
    return worst


def rows_are_independent(bench: Bench) -> float:
    """A row of a ragged batch generates with the logits that it has alone."""
    worst = 0.0
    for probe in bench.probes:
        for layer in bench.layers if probe.alone else []:
            with bench.under(Policy.withdraw(layer)):
                together = bench.generate(probe.inputs)
                for row, inputs in probe.alone:
                    alone = bench.generate(inputs, together.tokens[row : row + 1])
                    worst = max(worst, deviation(together.logits[row], alone.logits[0]))
    return worst


def misuse_is_refused(bench: Bench) -> float:
    """Policies that do not fit are refused by name, and nothing stays on the model, whatever happens inside."""
    model, facts, layers = bench.model, bench.facts, bench.facts.num_layers
    before = _hook_count(model)
    _refused(bench, Policy.withdraw(layers + 1), PolicyError)
    if facts.first_layer > 1:
        _refused(bench, Policy.withdraw(facts.first_layer - 1), PolicyError)
    other = PolicySet(model=facts.fingerprint.model_copy(update={"num_layers": layers + 1}))
    try:
        with apply_policy(model, other):
            raise ContractError("a policy file for another model was applied")
    except PolicyFileError:
        pass
    with bench.under(Policy.keep_all()):
        _refused(bench, Policy.keep_all(), RuntimeUseError)
    interrupted = bench.visual_probes[0].inputs
    try:
        with bench.under(Policy.withdraw(bench.layers[0])):
            bench.logits(interrupted)
            model.generate(**interrupted, max_new_tokens=2, stopping_criteria=[_interrupt])
    except _InterruptedError:
        pass
    else:
        raise ContractError("generation was not interrupted, so that nothing can be said of what it leaves")
    if _hook_count(model) != before:
        raise ContractError(f"{_hook_count(model) - before} hooks stay on the model after an exception")
    return 0.0


CONTRACTS: dict[str, Contract] = {
    "0 the adapter finds the visual tokens": visual_tokens_are_found,
    "1 keep-all changes nothing": keep_all_changes_nothing,
    "2 removing equals masking": removing_equals_masking,
    "3 cached decode equals uncached": cached_decode_equals_uncached,
    "4 positions are kept": positions_are_kept,
    "5 rows are independent": rows_are_independent,
    "6 misuse is refused": misuse_is_refused,
}


class _InterruptedError(Exception):
    """Raised inside generate, to see what it leaves behind."""


def _interrupt(*_: Any, **__: Any) -> Any:
    raise _InterruptedError


def _refused(bench: Bench, policy: Policy, error: type[Exception]) -> None:
    try:
        with run_under_policy(bench.model, bench.adapter, policy):
            raise ContractError(f"{policy.label()} was applied; it must be refused with {error.__name__}")
    except error:
        pass


def _without_effect(bench: Bench, probe: Probe) -> list[Policy]:
    """Return policies under which nothing of the probe leaves."""
    of_text = bench.adapter.visual_mask(bench.model, probe.inputs) is None
    layers = [bench.facts.num_layers, *(bench.layers[:1] if of_text else [])]
    return [Policy.keep_all(), *map(Policy.withdraw, layers)]


def _own_deviation(bench: Bench, probe: Probe) -> float:
    """Return how far cached and uncached generation of the model itself are apart."""
    cached = bench.generate(probe.inputs)
    return deviation(cached.logits, bench.generate(probe.inputs, cached.tokens, cached=False).logits)


def _positions(layer: nn.Module, call: Any, names: list[str]) -> dict[str, Any]:
    named = by_name(layer, call)
    return {name: named[name] for name in names if named.get(name) is not None}


def _gathered(call: dict[str, Any], arguments: LayerArguments, index: torch.Tensor) -> dict[str, Any]:
    def gathered(name: str, value: Any) -> Any:
        return map_tensors(value, lambda tensor: gather_tokens(tensor, index, arguments.tokens[name]))

    return {name: gathered(name, value) for name, value in call.items()}


def _difference(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> float:
    worst = 0.0
    for one, other in zip(tree_leaves(expected), tree_leaves(found), strict=True):
        if isinstance(one, torch.Tensor):
            if one.shape[1:] != other.shape[1:]:
                raise ContractError(f"positions of shape {tuple(other.shape)} instead of {tuple(one.shape)}")
            worst = max(worst, float((one - other).abs().max()))
    return worst


def _hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
