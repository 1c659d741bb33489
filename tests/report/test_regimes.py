"""A profile in words and as a table: what gains up to where, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from profilers.prefill import DecodeMacs, PrefillMacs
from profilers.regimes import GainingOutputs, Phases, Regime
from profilers.statistics import Blocks, Interval
from vtw_search.profiling.rows import RegimeRow, Side
from vtw_search.report.regimes import draw_regimes, regime_table, sentences

SIDE = Side(PrefillMacs(0, 0, (10,), 1), DecodeMacs((5,), 1), cache_bytes=100)
STEADY = Blocks(((1.0, 1.0),) * 3, ((1.0, 1.0),) * 3)


def row(visual: int = 64, speedup: float = 1.2) -> RegimeRow:
    interval = Interval(speedup, speedup - 0.05, speedup + 0.05)
    return RegimeRow(
        Regime(1, visual, 8, 4), "measured", SIDE, SIDE, phases=Phases(None, STEADY, STEADY, 4), speedup=interval,
        ceiling=2.0, verdict="pays off" if interval.low > 1 else "cannot tell",
    )  # fmt: skip


def printed(*rows: RegimeRow) -> str:
    console = Console(width=200)
    with console.capture() as found:
        console.print(regime_table(rows, "policy"))
    return found.get()


@pytest.mark.parametrize(
    "gaining, words",
    [(GainingOutputs(1.0), "from 1"), (GainingOutputs(4.2), "from 4"), (GainingOutputs(1.0, 11.0), "up to 11"),
     (None, "none")],
)  # fmt: skip
def test_the_table_says_how_long_answers_are_that_gain(gaining: GainingOutputs | None, words: str) -> None:
    assert f" {words} " in printed(replace(row(), gaining_outputs=gaining))


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
