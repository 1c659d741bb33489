"""A policy in regimes on the embedded model: counts, caches, times by a clock made by hand, and rows without memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from profilers.regimes import Regime
from profilers.stopwatch import CpuStopwatch
from profilers.timing import ProtocolSettings
from tests.conftest import make_tiny_llava
from vtw_search import Policy
from vtw_search.adapters import find_adapter
from vtw_search.profiling import regimes
from vtw_search.profiling.regimes import RegimeRunner
from vtw_search.profiling.works import RegimeWorks

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


def test_a_policy_that_saves_nothing_is_not_praised(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    (row,) = runner(Policy.withdraw(6)).rows([REGIME])
    assert row.speedup is not None
    assert row.speedup.value == pytest.approx(1.0)
    assert (row.verdict, row.macs_ratio) == ("cannot tell", 1.0)
    assert row.ceiling == 1.0


def test_a_gain_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder_only(monkeypatch)
    monkeypatch.setattr(regimes, "environment_problems", lambda *_: ())
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
    assert row.phases.vision_ms is not None
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


def test_counting_alone_runs_nothing() -> None:
    found = runner(Policy.withdraw(2), settings=None)
    (row,) = found.rows([REGIME])
    assert (row.status, row.phases, row.verdict) == ("counted", None, None)
    assert found.stopwatch is not None
    assert found.stopwatch._clock.milliseconds == 0  # type: ignore[attr-defined]
