"""Grids, ceilings, break-even points and verdicts against hand-made times."""

from __future__ import annotations

import pytest

from profilers.regimes import (
    GainingOutputs,
    Phases,
    Regime,
    amdahl_ceiling,
    break_even_visual_tokens,
    gaining_output_tokens,
    regime_grid,
    verdict,
)
from profilers.statistics import Blocks, Interval


def steady(reference: float, candidate: float) -> Blocks:
    return Blocks(((reference, reference),) * 5, ((candidate, candidate),) * 5)


def phases(prefill: tuple[float, float], decode: tuple[float, float] | None, outputs: int, vision: float = 0) -> Phases:
    tower = steady(vision, vision) if vision else None
    return Phases(tower, steady(*prefill), None if decode is None else steady(*decode), outputs)


def test_a_grid_is_every_combination_once() -> None:
    grid = regime_grid(batch=[8, 1], visual_tokens=[576, 576], prompt_tokens=[40], output_tokens=[1, 64])
    assert grid == [Regime(1, 576, 40, 1), Regime(1, 576, 40, 64), Regime(8, 576, 40, 1), Regime(8, 576, 40, 64)]


@pytest.mark.parametrize("wrong", [[], [0], [4, -1]])
@pytest.mark.parametrize("axis", ["batch", "visual_tokens", "prompt_tokens", "output_tokens"])
def test_an_empty_or_negative_axis_is_refused(axis: str, wrong: list[int]) -> None:
    axes = {key: [1] for key in ("batch", "visual_tokens", "prompt_tokens", "output_tokens")} | {axis: wrong}
    with pytest.raises(ValueError, match=rf"values of at least 1; got {axis}=.*Give one value or more"):
        regime_grid(**axes)


def test_speed_up_is_of_the_whole_answer() -> None:
    found = phases((100.0, 50.0), (10.0, 9.0), outputs=11, vision=20.0)
    assert found.totals_ms() == (220.0, 160.0)
    assert found.speedup() == Interval(220 / 160, 220 / 160, 220 / 160)
    assert found.first_token_speedup().value == 120 / 70
    decode = found.decode_speedup()
    assert decode is not None
    assert decode.value == 10 / 9
    assert phases((100.0, 50.0), None, outputs=1).decode_speedup() is None


def test_every_phase_and_side_is_summarised_call_by_call() -> None:
    found = phases((100.0, 50.0), None, outputs=1, vision=20.0).summaries()
    assert {phase: [side.p50_ms for side in sides] for phase, sides in found.items()} == {
        "vision": [20.0, 20.0], "prefill": [100.0, 50.0],
    }  # fmt: skip
    (rising, _) = Blocks(((1.0, 2.0), (3.0, 4.0), (5.0, 11.0)), ((1.0, 1.0),) * 3).summaries()
    assert rising.as_dict() == pytest.approx({"calls": 6, "p50_ms": 3.5, "p90_ms": 8.0, "p99_ms": 10.7})


def test_nothing_can_be_faster_than_the_ceiling() -> None:
    found = phases((80.0, 80.0), (2.0, 2.0), outputs=11, vision=20.0)
    assert amdahl_ceiling(found, kept_prefill=0.25, kept_decode=0.5) == 120 / (20 + 20 + 10)
    assert amdahl_ceiling(found, 1.0, 1.0) == 1.0
    assert amdahl_ceiling(phases((80.0, 1.0), None, 1, vision=20.0), 0.0, 0.0) == 5.0


@pytest.mark.parametrize(
    "prefill, decode, expected",
    [
        ((100.0, 90.0), (10.0, 9.0), GainingOutputs(1.0)),
        ((100.0, 90.0), (10.0, 10.0), GainingOutputs(1.0)),
        ((100.0, 106.0), (10.0, 8.0), GainingOutputs(4.0)),
        ((100.0, 106.0), (10.0, 11.0), None),
        ((100.0, 90.0), (10.0, 11.0), GainingOutputs(1.0, below=11.0)),
        ((100.0, 90.0), None, GainingOutputs(1.0)),
        ((100.0, 101.0), None, None),
    ],
)
def test_how_long_answers_are_that_gain(
    prefill: tuple[float, float], decode: tuple[float, float] | None, expected: GainingOutputs | None
) -> None:
    assert gaining_output_tokens(phases(prefill, decode, 8)) == expected


def test_the_ends_of_what_gains_are_where_both_sides_take_equally_long() -> None:
    for prefill, decode in (((100.0, 90.0), (10.0, 11.0)), ((100.0, 106.0), (10.0, 8.0))):
        found = gaining_output_tokens(phases(prefill, decode, 8))
        assert found is not None
        end = found.below or found.above
        reference, candidate = phases(prefill, decode, round(end)).totals_ms()
        assert reference == candidate


@pytest.mark.parametrize(
    "speedups, expected",
    [
        ({100: 1.2, 500: 1.5}, 100.0),
        ({100: 0.9, 500: 1.1}, 300.0),
        ({100: 0.8, 500: 0.9}, None),
        ({100: 0.9}, None),
        ({64: 1.01, 576: 0.9}, None),
        ({64: 1.2, 100: 0.9, 500: 1.1, 600: 1.2}, 300.0),
    ],
)
def test_break_even_in_visual_tokens(speedups: dict[int, float], expected: float | None) -> None:
    found = break_even_visual_tokens(speedups)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "interval, problems, blocks, words",
    [
        (Interval(1.2, 1.1, 1.3), (), (0.9, 1.4), "pays off"),
        (Interval(0.9, 0.8, 0.95), (), None, "does not"),
        (Interval(1.05, 0.99, 1.1), (), (1.01, 1.2), "cannot tell"),
        (Interval(1.2, 1.1, 1.3), ("the GPU was held down by power cap",), (0.99, 1.4), "cannot tell"),
        (Interval(1.2, 1.1, 1.3), ("the GPU was held down by power cap",), None, "cannot tell"),
        (Interval(1.2, 1.1, 1.3), ("the GPU was held down by power cap",), (1.02, 1.4), "pays off"),
        (Interval(0.9, 0.8, 0.95), ("times spread by 30%",), (0.7, 0.98), "does not"),
    ],
)
def test_the_verdict_leaves_no_doubt_or_says_so(
    interval: Interval, problems: tuple[str, ...], blocks: tuple[float, float] | None, words: str
) -> None:
    assert verdict(interval, problems, blocks) == words


def test_the_worst_and_the_best_block_are_of_the_whole_answer() -> None:
    prefill = Blocks(((100.0, 100.0),) * 6, (*(((50.0, 50.0),) * 4), (80.0, 80.0), (40.0, 40.0)))
    decode = Blocks(((10.0, 10.0),) * 6, (*(((9.0, 9.0),) * 5), (11.0, 11.0)))
    found = Phases(steady(20.0, 20.0), prefill, decode, output_tokens=11)
    assert found.worst_and_best() == pytest.approx((220 / (20 + 80 + 110), 220 / (20 + 40 + 90)))
    few = Blocks(prefill.reference_ms[:5], prefill.candidate_ms[:5])
    assert Phases(None, few, None, output_tokens=1).worst_and_best() is None
