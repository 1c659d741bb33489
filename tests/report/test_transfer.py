"""The transfer table as picture, terminal table, CSV and part of the page: the same numbers everywhere."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from rich.console import Console

from tests.report.studies import judge, measure, study
from tests.report.test_confirmation import TESTED
from vtw_search.policies import Policy
from vtw_search.records import Measurement
from vtw_search.report import front_page, show_studies, transfer_figure, transfer_frame, transfer_table, write_report
from vtw_search.report.transfer import heat_of, price_lines
from vtw_search.results import Row
from vtw_search.transfer import Price, SharedPolicy, Sharing

EVIL = "<b>$\\frac{$ & more"
LAYERS = {"first": 5, EVIL: 8}


def row(task: str, layer: int) -> Row:
    """Task `first` needs its tokens up to layer 3, the other one up to layer 6."""
    measurement = measure(task, layer, middle=2.0 if task == "first" else 5.0)
    return Row(measurement, judge(measurement, kl_bound=1.0))


@pytest.fixture
def sharing() -> Sharing:
    transfer = {name: {task: row(task, layer) for task in LAYERS} for name, layer in LAYERS.items()}
    shared = {task: row(task, 8) for task in LAYERS}
    prices = {"first": Price(700, 800, 1000), EVIL: Price(800, 800, 1000)}
    holdout = {task: {"accuracy_drop": 0.0} for task in LAYERS}
    return Sharing(
        transfer, "one policy for all: " + EVIL, SharedPolicy(Policy.withdraw(8), shared, prices, holdout, {}), TESTED
    )


def test_the_picture_has_every_cell_with_its_numbers_and_frames_what_breaks_a_limit(sharing: Sharing) -> None:
    figure = transfer_figure(sharing)
    [axes] = figure.axes
    cells = {text.get_position(): text for text in axes.texts}
    assert len(cells) == 6
    for place, (_, rows) in enumerate(sharing.lines()):
        for column, task in enumerate(LAYERS):
            text = cells[column, place]
            assert f"drop {rows[task].measurement.accuracy_drop:.3f}" in text.get_text()
            assert (text.get_fontweight() == "bold") == (not rows[task].feasible)
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(frames) == sum(not cell.feasible for _, rows in sharing.lines() for cell in rows.values()) == 1
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    stream.seek(0)
    assert imread(stream, format="png").std() > 0.02


def test_colour_follows_the_drop(sharing: Sharing) -> None:
    [image] = transfer_figure(sharing).axes[0].images
    drops = [[rows[task].measurement.accuracy_drop for task in LAYERS] for _, rows in sharing.lines()]
    heats = image.get_array()
    assert heats is not None
    assert heats.tolist() == [[min(max(drop / 0.1, 0), 1) for drop in line] for line in drops]
    assert heat_of(Row(Measurement(task="t", policy=Policy.withdraw(2), layer=2, failure="x"), ())) == 1.0


def test_the_terminal_has_the_table_the_price_and_the_tests(sharing: Sharing) -> None:
    console = Console(width=100, record=True)
    holdout = {
        "samples": 300, "accuracy": 0.95, "reference_accuracy": 0.96, "accuracy_drop": 0.01, "accuracy_drop_low": -0.01,
        "accuracy_drop_high": 0.03, "accuracy_drop_gap": 0.007, "evaluations_of_this_holdout": 3, "limits": {},
    }  # fmt: skip
    show_studies(console, [replace(study(), holdout=holdout)], Path("runs/a/policy.json"), sharing)
    text = console.export_text()
    assert "first: 80.0% of keep-all's macs instead of 70.0%, 100 macs more per prefill" in text
    assert "all together: 80.0% of keep-all's macs instead of 75.0%, 100 macs more over a prefill of each" in text
    assert "tested with 95% confidence" in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert price_lines(replace(sharing, shared=None)) == []


def test_many_tasks_still_fit_the_terminal() -> None:
    names = [f"a_task_with_a_long_name_{number}" for number in range(4)]
    rows = {name: row("first", 5) for name in names}
    console = Console(width=100, record=True)
    console.print(transfer_table(Sharing(dict.fromkeys(names, rows), "", None)))
    assert console.export_text().count("drop 0.004") == 16


def test_the_page_shows_the_heat_map_and_escapes_every_name(sharing: Sharing) -> None:
    page = front_page(study(), sharing)
    assert page.count("rgba(213, 94, 0") == 6
    assert "one policy for all: &lt;b&gt;$\\frac{$ &amp; more" in page
    assert EVIL not in page
    assert "Tests of one policy for all tasks" in page
    assert "on the others" not in front_page(study())


def test_the_files_are_csv_json_and_a_picture(sharing: Sharing, tmp_path: Path) -> None:
    written = write_report([study()], tmp_path, sharing)[""]
    assert [path.name for path in written] == ["curves.png", "sharing.json", "transfer.csv", "transfer.png"]
    frame = pd.read_csv(tmp_path / "transfer.csv")
    pd.testing.assert_frame_equal(frame, transfer_frame(sharing), check_dtype=False)
    assert frame["feasible"].tolist() == [cell.feasible for _, rows in sharing.lines() for cell in rows.values()]
    content = json.loads((tmp_path / "sharing.json").read_text())
    assert content["shared"]["price_in_total"]["lost_macs"] == 100
    assert set(content["transfer"]) == {"first", EVIL, "all tasks"}


def test_a_cell_that_failed_says_so(sharing: Sharing) -> None:
    failed = Row(Measurement(task="first", policy=Policy.withdraw(8), layer=8, failure="out of memory"), ())
    broken = replace(sharing, transfer={**sharing.transfer, EVIL: {**sharing.transfer[EVIL], "first": failed}})
    assert transfer_figure(broken).axes[0].texts[2].get_text() == "failed"
    assert transfer_frame(broken)["status"].tolist()[2] == "failed: out of memory"
    assert "failed" in front_page(study(), broken)
