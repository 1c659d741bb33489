"""Macs composed from parts against one count of the whole prefill under the policy."""

from __future__ import annotations

import pytest

from profilers.macs import count_macs
from vtw_search import Policy, apply_policy
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import easy_vqa
from vtw_search.search.profile import Profiler, profile_columns


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def profiler(loaded: LoadedModel) -> Profiler:
    return Profiler(loaded, list(easy_vqa.load_pool("color", "holdout"))[:9], repeats=1, warmup=0)


@pytest.mark.parametrize("policy", [Policy.keep_all(), *(Policy.withdraw(layer=layer) for layer in (1, 6, 11, 12))])
def test_the_composed_macs_equal_a_count_of_the_whole_prefill(
    loaded: LoadedModel, profiler: Profiler, policy: Policy
) -> None:
    with apply_policy(loaded.model, policy):
        whole = count_macs(loaded.model, **profiler.inputs, use_cache=False, logits_to_keep=1)
    assert profiler.macs(policy).total == whole.total


def test_the_tokens_per_layer_are_what_the_layers_receive(loaded: LoadedModel, profiler: Profiler) -> None:
    policy, received = Policy.withdraw(layer=5), []
    layers = loaded.model.model.language_model.layers
    with apply_policy(loaded.model, policy):
        handles = [
            layer.register_forward_hook(lambda _, arguments, __: received.append(arguments[0].shape[1]))
            for layer in layers
        ]
        loaded.model(**profiler.inputs)
        for handle in handles:
            handle.remove()
    assert received == profiler.tokens_per_layer(policy)


def test_a_profile_becomes_columns(profiler: Profiler) -> None:
    reference = profiler.macs(Policy.keep_all()).total
    columns = profile_columns(profiler.profile(Policy.withdraw(layer=1)), reference)
    assert columns["macs"] == sum(columns[f"{part}_macs"] for part in ("vision", "projector", "decoder", "lm_head"))
    assert columns["macs_ratio"] == columns["macs"] / reference < 1
    assert columns["visual_tokens"] == 64
    assert columns["latency_ms"] > 0
    assert columns["latency_repeats"] == 2
