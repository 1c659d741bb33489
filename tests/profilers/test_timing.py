"""The order of calls, when it starts and stops, what drift does, and what makes times unreliable; no real clock."""

from __future__ import annotations

import random

import pytest

from profilers.protocol import ProtocolSettings, WarmUp, warm_up
from profilers.timing import Compared, UnsteadyClockError, compare
from tests.profilers.machine import Machine

STEADY = ProtocolSettings(min_rounds=4, min_seconds=0, window=2)


def constant(seconds: float) -> object:
    return lambda _: seconds


def test_rounds_are_a_b_b_a_for_every_candidate_in_random_order() -> None:
    machine = Machine()
    works = {name: machine.work(name, lambda _: 1.0) for name in "BCD"}
    settings = ProtocolSettings(min_rounds=30, min_seconds=0, window=1)
    compare(machine.work("A", lambda _: 1.0), works, machine.stopwatch(), settings, machine.elapsed)
    timed = "".join(machine.calls)[-30 * 12 :]
    blocks = [timed[start : start + 4] for start in range(0, len(timed), 4)]
    assert set(blocks) == {"ABBA", "ACCA", "ADDA"}
    rounds = [tuple(blocks[start : start + 3]) for start in range(0, len(blocks), 3)]
    assert all(len(set(each)) == 3 for each in rounds)
    assert len(set(rounds)) > 3


def test_what_entering_costs_is_not_timed() -> None:
    machine = Machine()
    found = compare(
        machine.work("A", lambda _: 1.0, prepare=7.0), {"B": machine.work("B", lambda _: 0.5, prepare=3.0)},
        machine.stopwatch(), STEADY, machine.elapsed,
    )["B"]  # fmt: skip
    assert (found.reference.p50_ms, found.candidate.p50_ms, found.ratio.value) == (1000.0, 500.0, 0.5)
    assert found.problems == ()


@pytest.mark.parametrize("rounds, seconds, expected", [(5, 0.0, 5), (3, 100.0, 25)])
def test_both_the_least_rounds_and_the_least_time_have_to_be_reached(
    rounds: int, seconds: float, expected: int
) -> None:
    machine = Machine()
    settings = ProtocolSettings(min_rounds=rounds, min_seconds=seconds, window=1)
    a, b = machine.work("A", lambda _: 1.0), machine.work("B", lambda _: 1.0)
    found = compare(a, {"B": b}, machine.stopwatch(), settings, machine.elapsed)["B"]
    assert len(found.blocks) == expected
    assert len(found.candidate.values_ms) == 2 * expected


def test_warm_up_goes_on_until_two_windows_agree() -> None:
    machine = Machine()
    work = machine.work("A", lambda number: 1.0 + 2.0 * max(0, 9 - number))
    assert warm_up(work, machine.stopwatch(), ProtocolSettings(window=3, settled=0.01)) == WarmUp(15, True)


def test_a_work_that_never_settles_is_unreliable() -> None:
    machine = Machine()
    growing = machine.work("B", lambda number: 1.0 + number)
    settings = ProtocolSettings(min_rounds=3, min_seconds=0, window=1, settled=0.0, max_windows=4, max_seconds=1e3)
    found = compare(machine.work("A", lambda _: 1.0), {"B": growing}, machine.stopwatch(), settings, machine.elapsed)
    assert "times did not settle within 4 calls of warm-up" in found["B"].problems


def drifting(name: str, machine: Machine, base: float, per_call: float) -> Compared:
    """The machine slows down evenly: alternation leaves the ratio alone."""
    settings = ProtocolSettings(min_rounds=20, min_seconds=0, window=1, settled=1.0, max_seconds=1000)
    a = machine.work("A", lambda number: 1.0 + per_call * number)
    b = machine.work(name, lambda number: base * (1.0 + per_call * number))
    return compare(a, {name: b}, machine.stopwatch(), settings, machine.elapsed)[name]


def test_even_drift_falls_on_both_sides_alike() -> None:
    found = drifting("B", Machine(), base=0.8, per_call=0.02)
    assert found.ratio.value == pytest.approx(0.8)
    assert found.ratio.low == pytest.approx(found.ratio.high)
    assert found.reference.values_ms[-1] > 2 * found.reference.values_ms[0]
    assert any("times spread by" in problem for problem in found.problems)


def test_a_clock_that_jumps_costs_its_block_and_is_told() -> None:
    machine = Machine(jumps={12: 3600.0, 18: -3600.0})
    settings = ProtocolSettings(min_rounds=6, min_seconds=0, window=1)
    a, b = machine.work("A", lambda _: 1.0), machine.work("B", lambda _: 2.0)
    found = compare(a, {"B": b}, machine.stopwatch(), settings, machine.elapsed)["B"]
    assert len(found.blocks) == 4
    assert found.ratio.value == 2.0
    assert found.problems == ("the clock jumped in 2 blocks, which were left out",)


def test_a_clock_that_never_holds_still_is_an_error() -> None:
    machine = Machine(jumps=dict.fromkeys(range(4, 100), 3600.0))
    settings = ProtocolSettings(min_rounds=4, min_seconds=0, window=1)
    a, b = machine.work("A", lambda _: 1.0), machine.work("B", lambda _: 1.0)
    with pytest.raises(UnsteadyClockError, match=r"At least 3 blocks.*got 0, and 4 in which it jumped.*measure again"):
        compare(a, {"B": b}, machine.stopwatch(), settings, machine.elapsed)


def restless(machine: Machine, scale: float = 1.0) -> object:
    """Calls that take 10 ms to 1 s in no order, as where others keep all cores busy."""
    noise = random.Random(1)
    return lambda _: scale * 10 ** noise.uniform(-2, 0)


@pytest.mark.parametrize("max_seconds", [2.0, 10.0])
@pytest.mark.parametrize("rounds, seconds", [(5, 0.0), (40, 0.0), (5, 60.0)])
def test_times_that_do_not_settle_end_in_time_with_what_was_seen(
    max_seconds: float, rounds: int, seconds: float
) -> None:
    machine, settings = Machine(), ProtocolSettings(rounds, seconds, max_seconds=max_seconds)
    works = {"B": machine.work("B", restless(machine))}
    found = compare(machine.work("A", restless(machine)), works, machine.stopwatch(), settings, machine.elapsed)["B"]
    # Beyond the limit go at most the rest of a window of 3 calls, two windows of the candidate, and three blocks.
    assert machine.now < max_seconds + 3 + 6 + 12
    assert len(found.blocks) >= 3
    assert found.candidate.p50_ms > 0
    assert found.ratio.low <= found.ratio.value <= found.ratio.high
    assert any(f"calls of warm-up: {max_seconds:g} s were over" in problem for problem in found.problems)
    if len(found.blocks) < rounds:
        assert f"{len(found.blocks)} of {rounds} rounds were taken: {max_seconds:g} s were over" in found.problems


def test_times_that_become_restless_after_the_warm_up_end_in_time() -> None:
    machine, noise = Machine(), random.Random(1)

    def seconds(number: int) -> float:
        return 0.1 if number < 12 else 10 ** noise.uniform(-2, 0)

    settings = ProtocolSettings(min_rounds=1000, min_seconds=0, max_seconds=5)
    a, b = machine.work("A", seconds), machine.work("B", seconds)
    found = compare(a, {"B": b}, machine.stopwatch(), settings, machine.elapsed)["B"]
    assert machine.now < 5 + 4
    assert found.problems[-1] == f"{len(found.blocks)} of 1000 rounds were taken: 5 s were over"


@pytest.mark.parametrize("call_s", [0.001, 0.1, 30.0])
@pytest.mark.parametrize("max_seconds", [1e-3, 10.0, 1e9])
def test_steady_times_are_taken_in_full_however_slow_the_work_is(call_s: float, max_seconds: float) -> None:
    machine, settings = Machine(), ProtocolSettings(min_rounds=7, min_seconds=0, max_seconds=max_seconds)
    a, b = machine.work("A", lambda _: call_s), machine.work("B", lambda _: call_s / 2)
    found = compare(a, {"B": b}, machine.stopwatch(), settings, machine.elapsed)["B"]
    assert (len(found.blocks), found.ratio.value, found.problems) == (7, pytest.approx(0.5), ())


def test_where_others_keep_all_cores_busy_nothing_is_waited_for() -> None:
    machine, settings = Machine(), ProtocolSettings(min_rounds=5, min_seconds=0)
    a, b = (machine.work(name, restless(machine, 0.01)) for name in "AB")
    found = compare(a, {"B": b}, machine.stopwatch(), settings, machine.elapsed, crowded=lambda: True)["B"]
    assert len(machine.calls) == 2 * 6 + 3 * 4
    assert found.problems[0] == "times did not settle within 6 calls of warm-up: others kept the machine busy"
    assert found.problems[-1] == "3 of 5 rounds were taken: others kept the machine busy"
    steady = {"B": machine.work("B", lambda _: 1.0)}
    found = compare(
        machine.work("A", lambda _: 1.0), steady, machine.stopwatch(), settings, machine.elapsed, lambda: True
    )["B"]
    assert (len(found.blocks), found.problems) == (5, ())


def test_an_error_of_a_candidate_reaches_the_caller() -> None:
    machine = Machine()

    def broken(_: int) -> float:
        raise RuntimeError("of the candidate")

    with pytest.raises(RuntimeError, match="of the candidate"):
        compare(machine.work("A", lambda _: 1.0), {"B": machine.work("B", broken)}, machine.stopwatch(), STEADY)


def test_no_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs a candidate; got none"):
        compare(Machine().work("A", lambda _: 1.0), {}, Machine().stopwatch())


@pytest.mark.parametrize("wrong", [{"min_rounds": 2}, {"min_seconds": -1}, {"window": 0}, {"max_windows": 1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} must be at least \d; got"):
        ProtocolSettings(**wrong)


def noisy_comparison(seed: int, ratio: float) -> Compared:
    """Lognormal noise, a slow wave over both sides, and one call in twenty that is hit by something else."""
    machine, noise = Machine(), random.Random(seed)

    def seconds(number: int) -> float:
        hit = 3.0 if noise.random() < 0.05 else 1.0
        return hit * noise.lognormvariate(0, 0.05) * (1 + 0.2 * ((number // 40) % 3))

    settings = ProtocolSettings(min_rounds=15, min_seconds=0, window=1, settled=10.0, seed=seed, max_seconds=1e6)
    a, b = machine.work("A", seconds), machine.work("B", lambda number: ratio * seconds(number))
    return compare(a, {"B": b}, machine.stopwatch(), settings, machine.elapsed)["B"]


def test_the_same_work_twice_is_no_difference_at_the_stated_rate() -> None:
    """95 % intervals; of 150 comparisons 142.5 should hold 1. The chance of fewer than 130 is below 1e-4."""
    found = sum(noisy_comparison(seed, 1.0).no_difference for seed in range(150))
    assert found >= 130


def test_a_difference_of_ten_percent_is_found() -> None:
    found = [noisy_comparison(seed, 0.9) for seed in range(40)]
    assert sum(not each.no_difference and each.ratio.high < 1 for each in found) >= 36
    assert sum(each.ratio.contains(0.9) for each in found) >= 33
