"""A profile in words and as a table: what gains up to where, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from profilers.prefill import DecodeMacs, PrefillMacs
from profilers.regimes import GainingOutputs, Phases, Regime
from profilers.statistics import Blocks, Interval
from vtw_search.profiling.rows import RegimeRow, Side
from vtw_search.report.regimes import draw_regimes, regime_table, sentences
from vtw_search.report.times import times_table

SIDE = Side(PrefillMacs(0, 0, (10,), 1), DecodeMacs((5,), 1), cache_bytes=100)
STEADY = Blocks(((1.0, 1.0),) * 3, ((1.0, 1.0),) * 3)


def row(visual: int = 64, speedup: float = 1.2) -> RegimeRow:
    interval = Interval(speedup, speedup - 0.05, speedup + 0.05)
    return RegimeRow(
        Regime(1, visual, 8, 4), "measured", SIDE, SIDE, phases=Phases(None, STEADY, STEADY, 4), speedup=interval,
        ceiling=2.0, verdict="pays off" if interval.low > 1 else "cannot tell",
    )  # fmt: skip


def printed(*rows: RegimeRow, width: int = 200) -> str:
    return shown(regime_table(rows, "policy"), width)


def shown(table: Table, width: int) -> str:
    console = Console(width=width)
    with console.capture() as found:
        console.print(table)
    return found.get()


@pytest.mark.parametrize(
    "gaining, words",
    [(GainingOutputs(1.0), "from 1"), (GainingOutputs(4.2), "from 4"), (GainingOutputs(1.0, 11.0), "up to 11"),
     (None, "none")],
)  # fmt: skip
def test_the_table_says_how_long_answers_are_that_gain(gaining: GainingOutputs | None, words: str) -> None:
    assert f" {words} " in printed(replace(row(), gaining_outputs=gaining))


def test_the_table_of_a_profile_is_one_line_per_regime_and_says_what_its_columns_are() -> None:
    wide = Interval(11.25, 10.25, 12.25)
    full = replace(row(2880), first_token_speedup=wide, decode_speedup=wide, speedup=wide,
                   gaining_outputs=GainingOutputs(1.0, 1000.0))  # fmt: skip
    lines = printed(full, full, width=150).splitlines()
    assert sum("11.25 [10.25, 12.25]" in line and "up to 1000" in line and "pays off" in line for line in lines) == 2
    assert any(line.startswith("ceiling: if all that the policy touches took no time; gains: ") for line in lines)
    counted = printed(RegimeRow(Regime(8, 64, 8, 4), "counted", SIDE, SIDE))
    assert "first token" not in counted
    assert "macs, cache: the policy's over keep-all's" in counted


def test_percentiles_are_shown_by_phase_and_side_with_what_they_are_worth() -> None:
    few = Blocks(((1.0, 2.0),) * 20, ((2.0, 1234.4),) * 20)
    lines = shown(times_table([replace(row(), phases=Phases(STEADY, few, STEADY, 4))]), 150).splitlines()
    (line,) = (line for line in lines if "1234" in line)
    assert " ".join(line.split()[4:]) == "1 / 1 / 1 1.5 / 2 / 2 618 / 1234 / 1234 1 / 1 / 1 1 / 1 / 1"
    assert any(line.startswith("6 to 40 calls each: below 100, p99 says no more than the slowest") for line in lines)
    many = Blocks(((1.0, 2.0),) * 50, ((0.5, 0.7),) * 50)
    whole = shown(times_table([replace(row(), phases=Phases(None, many, None, 1))]), 150)
    assert "0.6 / 0.7 / 0.7" in whole
    assert "calls each" not in whole
    assert "decode step is" not in whole


@pytest.mark.parametrize(
    "speedups, words",
    [
        ({64: 1.2, 576: 1.5}, "from about 64 on"),
        ({64: 0.9, 576: 1.1}, "from about 320 on"),
        ({64: 1.01, 576: 0.9}, "at 64, but not at 576"),
        ({64: 0.8, 576: 0.9}, "at none of the measured counts"),
    ],
)
def test_where_visual_tokens_gain(speedups: dict[int, float], words: str) -> None:
    told = sentences([row(visual, speedup) for visual, speedup in speedups.items()])
    assert told[-1] == f"batch 1, 8 text and 4 output tokens: visual tokens gain {words}"


def test_a_row_without_times_says_why() -> None:
    failed = RegimeRow(Regime(8, 64, 8, 4), "not timed: the clock jumped", SIDE, SIDE)
    assert sentences([row(), failed])[1:] == [f"{failed.regime.label()}: not timed: the clock jumped"]
    assert "not timed: the clock jumped" in printed(failed)


def test_vision_parts_that_are_left_out_are_told_once_and_in_the_picture() -> None:
    rows = [replace(row(visual), left_out=("tower: it has two stacks", "projector: so")) for visual in (64, 576)]
    told = "macs, times, ceilings and verdicts leave out the vision part (tower: it has two stacks; projector: so)"
    assert sentences(rows).count(told) == 1
    texts = [text.get_text() for text in draw_regimes(rows, "policy").texts]
    assert "The vision part is left out." in texts
    assert "The vision part is left out." not in [text.get_text() for text in draw_regimes([row()], "policy").texts]
