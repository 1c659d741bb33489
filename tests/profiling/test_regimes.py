"""A policy in regimes on the embedded model: counts, caches, times by a clock made by hand, and rows without memory."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from profilers.closed_form import tower_macs
from profilers.protocol import ProtocolSettings
from profilers.regimes import Regime
from profilers.stopwatch import CpuStopwatch
from tests.conftest import make_tiny_llava
from vtw_search import Policy
from vtw_search.adapters import find_adapter
from vtw_search.errors import PolicyError
from vtw_search.profiling import regimes
from vtw_search.profiling.regimes import RegimeRunner
from vtw_search.profiling.works import RegimeWorks
from vtw_search.recipes import find_recipe
from vtw_search.report.regimes import sentences

SETTINGS = ProtocolSettings(min_rounds=3, min_seconds=0, window=1, settled=10.0)
REGIME = Regime(batch=2, visual_tokens=9, prompt_tokens=6, output_tokens=3)


class CountingClock:
    """Tells as many milliseconds as tokens went through decoder layers."""

    def __init__(self, stack: Any) -> None:
        self.milliseconds = 0
        for layer in stack:
            layer.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: object, args: Any, kwargs: Any) -> None:
        self.milliseconds += (args[0] if args else kwargs["hidden_states"]).shape[1]

    def __call__(self) -> float:
        return self.milliseconds / 1000


def runner(policy: Policy, model: Any = None, settings: ProtocolSettings | None = SETTINGS) -> RegimeRunner:
    model = model or make_tiny_llava("sdpa")
    adapter = find_adapter(model)
    watch = CpuStopwatch(CountingClock(adapter.decoder_layers(model)))
    return RegimeRunner(adapter, model, policy, settings, watch)


def decoder_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock counts tokens in decoder layers, of which the tower has none.
    monkeypatch.setattr(RegimeWorks, "vision", lambda self: None)


def test_the_right_calls_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    (row,) = runner(Policy.withdraw(2)).rows([REGIME])
    assert row.phases is not None
    # The clock's hook comes before the one that cuts: layer 2 itself is seen whole.
    assert row.phases.prefill.medians() == pytest.approx((6 * 15, 3 * 15 + 3 * 6))
    assert row.phases.decode is not None
    assert row.phases.decode.medians() == pytest.approx((6.0, 6.0))
    assert row.speedup is not None
    assert row.speedup.value == pytest.approx((90 + 12) / (63 + 12))
    assert row.decode_speedup is not None
    assert row.decode_speedup.value == pytest.approx(1.0)
    assert row.ceiling is not None
    assert row.ceiling == pytest.approx(1.7, abs=0.3)


def test_only_the_layers_below_limit_what_a_decode_step_may_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    (row,) = runner(Policy.withdraw(2)).rows([replace(REGIME, output_tokens=60)])
    step = row.reference.decode
    # All but a few percent of the time are decode steps.
    assert row.ceiling == pytest.approx(step.total / (sum(step.decoder_layers[:2]) + step.lm_head), rel=0.15)


def test_a_policy_that_saves_nothing_is_not_praised(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    (row,) = runner(Policy.withdraw(6)).rows([REGIME])
    assert row.speedup is not None
    assert row.speedup.value == pytest.approx(1.0)
    assert (row.verdict, row.macs_ratio) == ("cannot tell", 1.0)
    assert row.ceiling == 1.0


def test_a_gain_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    monkeypatch.setattr("profilers.watch.environment_problems", lambda *_: ())
    (row,) = runner(Policy.withdraw(1)).rows([REGIME])
    assert (row.verdict, row.problems) == ("pays off", ())


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "internvl", "qwen3_vl", "idefics3"])
def test_caches_hold_what_the_formula_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    (row,) = runner(Policy.withdraw(3), find(name).build()).rows([REGIME])
    for side in (row.reference, row.candidate):
        assert side.cache_bytes == side.cache_bytes_found
        assert side.peak is not None
    assert row.candidate.cache_bytes < row.reference.cache_bytes


def test_the_vision_part_is_timed_once_for_both() -> None:
    model = make_tiny_llava("sdpa")
    found = RegimeRunner(find_adapter(model), model, Policy.withdraw(2), SETTINGS)
    (row,) = found.rows([Regime(1, 9, 6, 1)])
    assert row.phases is not None
    assert row.phases.vision is not None
    assert len(row.phases.vision) >= 3
    assert row.phases.vision_ms > 0
    assert row.phases.decode is None


def test_the_reference_runs_with_its_best_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    model, seen = make_tiny_llava("eager"), []
    found = runner(Policy.withdraw(2), model)
    find_adapter(model).decoder_layers(model)[0].register_forward_pre_hook(
        lambda *_: seen.append(model.config._attn_implementation)
    )
    list(found.rows([Regime(1, 9, 6, 1)]))
    assert set(seen) == {"eager", "sdpa"}
    assert model.config._attn_implementation == "eager"


def test_a_regime_that_runs_out_of_memory_is_a_row_and_the_grid_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    whole = RegimeWorks._prefill

    def prefill(self: RegimeWorks) -> Any:
        if self.regime.batch == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return whole(self)

    monkeypatch.setattr(RegimeWorks, "_prefill", prefill)
    rows = list(runner(Policy.withdraw(2)).rows([REGIME, Regime(1, 9, 6, 1)]))
    assert [row.status.partition(".")[0] for row in rows] == ["out of memory: CUDA out of memory", "measured"]
    assert (rows[0].verdict, rows[0].phases) == (None, None)
    assert rows[0].reference.prefill.total > 0


def test_a_regime_that_cannot_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regimes, "available_bytes", lambda _: 1000)
    (row,) = runner(Policy.withdraw(2)).rows([REGIME])
    assert row.status.startswith("out of memory: needs more than ")
    assert row.status.endswith("1000 are left")


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)

    def broken(self: RegimeWorks) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(RegimeWorks, "_prefill", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(runner(Policy.withdraw(2)).rows([REGIME]))


def test_a_row_is_json_with_macs_and_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    (row,) = runner(Policy.withdraw(2)).rows([REGIME])
    content = json.loads(json.dumps(row.as_dict()))
    for side in ("reference", "candidate"):
        assert content[side]["prefill"]["flops"] == 2 * content[side]["prefill"]["total"]
        assert content[side]["decode"]["flops"] == 2 * content[side]["decode"]["total"]
    assert len(content["phases"]["prefill"]["reference_ms"]) == 3
    assert content["percentiles"].keys() == {"prefill", "decode"}
    for sides in content["percentiles"].values():
        assert {side: found["calls"] for side, found in sides.items()} == {"reference": 6, "candidate": 6}
        assert all(found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"] for found in sides.values())


def test_counting_alone_runs_nothing() -> None:
    found = runner(Policy.withdraw(2), settings=None)
    (row,) = found.rows([REGIME])
    assert (row.status, row.phases, row.verdict) == ("counted", None, None)
    assert found.stopwatch is not None
    assert found.stopwatch._clock.milliseconds == 0  # type: ignore[attr-defined]


def test_a_clock_that_never_holds_still_is_a_row_and_the_grid_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    found = runner(Policy.withdraw(2))
    assert isinstance(found.stopwatch, CpuStopwatch)
    whole, jumps = RegimeWorks._prefill, [0.0]
    clock = found.stopwatch._clock

    def prefill(self: RegimeWorks) -> Any:
        jumps[0] += 3600.0 * (self.regime.batch == 2)
        return whole(self)

    monkeypatch.setattr(RegimeWorks, "_prefill", prefill)
    watch = CpuStopwatch(lambda: clock() + jumps[0], clock)
    rows = list(replace(found, stopwatch=watch).rows([REGIME, Regime(1, 9, 6, 1)]))
    assert rows[0].status.startswith("not timed: At least 3 blocks must have a steady clock; got 0")
    assert [row.failed for row in rows] == [True, False]
    assert rows[1].status == "measured"
    assert sentences(rows)[1] == f"{REGIME.label()}: {rows[0].status}"


def test_a_family_without_certificate_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    model = find("aya_vision").build()
    assert find_adapter(model).needs_certificate
    (row,) = runner(Policy.withdraw(3), model).rows([Regime(1, 9, 6, 2)])
    assert row.status == "measured"


def recipe(name: str, model: Any) -> Policy:
    facts = find_adapter(model).facts(model)
    parameters = find_recipe(name).parameters(facts)
    policy = find_recipe(name).policy(facts, {key: each.default for key, each in parameters.items()})
    assert policy is not None
    return policy


@pytest.mark.parametrize("name", ["vtc_cls", "fopru"])
def test_what_reads_the_tower_is_counted_but_not_timed(name: str) -> None:
    model = make_tiny_llava("sdpa")
    policy = recipe(name, model)
    with pytest.raises(PolicyError, match=r"can read it, got 'select:.*count it with profile=macs, or search"):
        runner(policy, model)
    (row,) = runner(policy, model, settings=None).rows([REGIME])
    assert row.candidate.prefill.scorer > 0


@pytest.mark.parametrize("settings", [SETTINGS, None])
def test_budgets_that_scores_decide_are_left_to_a_search(settings: ProtocolSettings | None) -> None:
    model = make_tiny_llava("sdpa")
    with pytest.raises(PolicyError, match=r"do not depend on scores, got 'select:knee.*search it"):
        runner(recipe("image_text_interaction", model), model, settings)


def test_a_batch_of_joined_pictures_meets_itself() -> None:
    model = find("mistral3").build()
    found = RegimeRunner(find_adapter(model), model, Policy.withdraw(3), settings=None)
    one, two = found.rows([Regime(batch, 16, 6, 1) for batch in (1, 2)])
    tower = find_adapter(model).shape(model).tower
    assert tower is not None
    assert two.reference.prefill.vision == tower_macs(tower, [(8, 8)] * 2) // 2 > one.reference.prefill.vision


def test_vision_parts_that_are_left_out_are_told() -> None:
    model = find("idefics2").build()
    found = RegimeRunner(find_adapter(model), model, Policy.withdraw(3), settings=None)
    (row,) = found.rows([REGIME])
    assert row.reference.prefill.vision == 0
    assert [reason.partition(":")[0] for reason in row.left_out] == ["tower", "projector"]
    assert any("must be matrices that meet every visual token" in reason for reason in row.left_out)
    assert not any("it is counted" in reason for reason in row.left_out)
    assert row.as_dict()["left_out"] == row.left_out
    (told,) = sentences([row])
    assert told.startswith("macs, times, ceilings and verdicts leave out the vision part (tower: ")
    model = make_tiny_llava("sdpa")
    (whole,) = RegimeRunner(find_adapter(model), model, Policy.withdraw(2), settings=None).rows([REGIME])
    assert (whole.left_out, sentences([whole])) == ((), [])
