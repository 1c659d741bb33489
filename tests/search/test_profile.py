"""Macs composed from parts against one count of the whole prefill under the policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count, repeat
from typing import Any

import pytest
import torch

from profilers.macs import count_macs
from profilers.memory import cache_bytes
from profilers.regimes import Regime
from profilers.stopwatch import CpuStopwatch
from profilers.watch import CpuUse
from vtw_search import Policy, apply_policy
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import easy_vqa
from vtw_search.profiling.regimes import RegimeRunner
from vtw_search.profiling.schedule import scorer_shape
from vtw_search.profiling.works import RegimeWorks
from vtw_search.recipes import find_recipe
from vtw_search.records import KL_COLUMNS, Measurement
from vtw_search.search import profile as module
from vtw_search.search.front import worth_timing
from vtw_search.search.profile import Profiler, Timing, profile_columns


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def profiler(loaded: LoadedModel) -> Profiler:
    return Profiler(loaded, list(easy_vqa.load_pool("color", "holdout"))[:9], repeats=3)


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


@pytest.mark.parametrize("policy", [Policy.keep_all(), Policy.withdraw(layer=1), Policy.withdraw(layer=6)])
def test_the_counted_cache_is_the_one_that_a_prefill_leaves(
    loaded: LoadedModel, profiler: Profiler, policy: Policy
) -> None:
    with apply_policy(loaded.model, policy), torch.inference_mode():
        held = cache_bytes(loaded.model(**profiler.inputs, use_cache=True).past_key_values)
    assert profiler.cache_bytes(policy) == held
    columns = profile_columns(profiler.profile(policy, timed=False), 1)
    assert columns["cache_ratio"] == held / profiler.cache_bytes(Policy.keep_all())


def test_a_profile_becomes_columns(profiler: Profiler) -> None:
    reference = profiler.macs(Policy.keep_all()).total
    columns = profile_columns(profiler.profile(Policy.withdraw(layer=1)), reference)
    assert columns["macs"] == sum(columns[f"{part}_macs"] for part in ("vision", "projector", "decoder", "lm_head"))
    assert columns["macs_ratio"] == columns["macs"] / reference < 1
    assert columns["visual_tokens"] == 64
    assert columns["latency_ms"] > 0
    assert columns["latency_repeats"] == 6
    assert columns["latency_ratio_low"] <= columns["latency_ratio"] <= columns["latency_ratio_high"]


def test_equal_token_schedules_are_timed_once(
    loaded: LoadedModel, profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[Policy] = []
    whole = Profiler._time

    def time(self: Profiler, policy: Policy) -> Timing:
        timed.append(policy)
        return whole(self, policy)

    monkeypatch.setattr(Profiler, "_time", time)
    # Withdrawal at the last layer's end keeps every token in every layer, as keep-all does.
    first, second = Policy.keep_all(), Policy.withdraw(loaded.facts.num_layers)
    monkeypatch.setattr(profiler, "_timings", {})
    assert profiler.profile(first).timing is profiler.profile(second).timing
    assert profiler.profile(Policy.withdraw(2)).timing is not profiler.profile(first).timing
    assert timed == [first, Policy.withdraw(2)]
    assert profiler.profile(Policy.withdraw(3), timed=False).timing is None
    assert len(timed) == 2


def test_what_no_limits_can_choose_is_not_timed() -> None:
    def row(layer: int, macs: int, accuracy: float, kl: float, failure: str | None = None) -> Measurement:
        kls = dict.fromkeys(KL_COLUMNS.values(), kl)
        policy = Policy.withdraw(layer) if layer < 9 else Policy.keep_all()
        return Measurement(task="t", policy=policy, layer=layer, macs=macs, accuracy=accuracy, failure=failure, **kls)

    rows = [row(9, 100, 0.9, 0.0), row(2, 50, 0.5, 0.4), row(4, 60, 0.8, 0.1), row(6, 70, 0.8, 0.2)]
    rows += [row(7, 70, 0.9, 0.3), row(3, 10, 1.0, 0.0, failure="out of memory")]
    chosen = worth_timing(rows)
    assert chosen == {rows[place].policy.digest() for place in (0, 1, 2, 4)}
    worse = [row(9, 100, 0.5, 0.5), row(2, 50, 0.9, 0.0)]
    assert worth_timing(worse) == {each.policy.digest() for each in worse}


def test_placing_a_policy_is_not_timed(profiler: Profiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a prefill moves by one second, and placing a policy by a hundred."""
    now = [0.0]

    @contextmanager
    def slowly(model: Any, policy: Policy) -> Iterator[None]:
        now[0] += 100.0
        with apply_policy(model, policy):
            yield
        now[0] += 100.0

    monkeypatch.setattr(module, "apply_policy", slowly)
    monkeypatch.setattr(module, "stopwatch_of", lambda _: CpuStopwatch(lambda: now[0]))
    monkeypatch.setattr(profiler, "_timings", {})
    first = profiler.loaded.adapter.decoder_layers(profiler.loaded.model)[0]
    handle = first.register_forward_pre_hook(lambda *_: now.__setitem__(0, now[0] + 1.0))
    try:
        timing = profiler.profile(Policy.withdraw(2)).timing
    finally:
        handle.remove()
    assert timing is not None
    assert timing.compared is not None
    assert (timing.compared.reference.p50_ms, timing.compared.candidate.p50_ms) == (1000.0, 1000.0)


def test_others_who_use_the_machine_are_told_beside_the_times(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses = chain([CpuUse(0.0, 0.0, 0.0)], repeat(CpuUse(30.0, 10.0, 10.0)))
    monkeypatch.setattr("profilers.watch.read_cpu_use", lambda: next(uses))
    monkeypatch.setattr(profiler, "_timings", {})
    columns = profile_columns(profiler.profile(Policy.withdraw(2)), 1)
    assert columns["latency_ms"] > 0
    assert columns["latency_problems"].split("; ")[0] == "other processes kept 2.0 cores busy"


def test_times_that_do_not_settle_are_given_up_and_told(profiler: Profiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which every prefill takes longer than the one before, and with no time to wait."""
    calls, now = count(1), [0.0]

    def slower(*_: object) -> None:
        now[0] += next(calls)

    monkeypatch.setattr(module, "stopwatch_of", lambda _: CpuStopwatch(lambda: now[0]))
    hasty = Profiler(profiler.loaded, list(easy_vqa.load_pool("color", "holdout"))[:1], repeats=9, max_seconds=1e-9)
    first = profiler.loaded.adapter.decoder_layers(profiler.loaded.model)[0]
    handle = first.register_forward_pre_hook(slower)
    try:
        columns = profile_columns(hasty.profile(Policy.withdraw(2)), 1)
    finally:
        handle.remove()
    assert columns["latency_ms"] == 1000 * 18.5  # calls 14, 15, 18, 19, 22 and 23, behind a warm-up of 12
    assert columns["latency_repeats"] == 6
    assert "did not settle within 6 calls of warm-up: 1e-09 s were over" in columns["latency_problems"]
    assert "3 of 9 rounds were taken: 1e-09 s were over" in columns["latency_problems"]


def test_a_clock_that_never_holds_still_costs_the_times_alone(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = count()
    monkeypatch.setattr(module, "stopwatch_of", lambda _: CpuStopwatch(lambda: 3600.0 * next(hours), lambda: 0.0))
    monkeypatch.setattr(profiler, "_timings", {})
    profile = profiler.profile(Policy.withdraw(2))
    columns = profile_columns(profile, profile.macs.total)
    assert columns["latency_problems"].startswith("not timed: At least 3 blocks must have a steady clock; got 0")
    assert columns["macs_ratio"] == 1.0
    assert not {"latency_ms", "latency_ratio"} & columns.keys()
    next_one = next(hours)
    assert profiler.profile(Policy.withdraw(2)).timing is profile.timing
    assert next(hours) == next_one + 1, "it is not tried again"


@pytest.mark.parametrize("name", ["fastv", "himap", "vtc_cls", "fopru"])
def test_a_regime_costs_what_the_search_counts(
    loaded: LoadedModel, profiler: Profiler, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, visual = find_recipe(name), int(profiler.layout.visual.sum())
    defaults = {key: each.default for key, each in recipe.parameters(loaded.facts).items()}
    policy = recipe.policy(loaded.facts, defaults)
    assert policy is not None
    regime = Regime(1, visual, profiler.layout.visual.shape[1] - visual, 1)
    # The same prompt, but with its image where regimes have it: what follows the image asks the questions.
    layout = RegimeWorks.layout_of(regime)
    monkeypatch.setattr(profiler, "layout", layout)
    monkeypatch.setattr(profiler, "shape", scorer_shape(loaded.adapter, loaded.model, layout.visual))
    (row,) = RegimeRunner(loaded.adapter, loaded.model, policy, settings=None).rows([regime])
    counted = profiler.macs(policy)
    assert row.candidate.prefill.scorer == counted.scorer > 0
    assert row.macs_ratio == counted.total / profiler.macs(Policy.keep_all()).total
