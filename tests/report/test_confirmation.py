"""The tests of finalists in the terminal, as CSV and on the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from tests.report.studies import study
from vtw_search.policies import Policy
from vtw_search.report import confirmation_frame, front_page, show_studies, write_report
from vtw_search.report.confirmation import confirmation_table, noise_texts, title
from vtw_search.results import Bounded, Confirmation, Finalist, StudyResult

HOLDS = Bounded("accuracy_drop", 0.02, 0.0033, 0.0157, 300, "exact")
FAILS = Bounded("kl_nats[digits=<4>]", 0.01, 0.0094, 0.0121, 100, "betting")
TESTED = Confirmation(
    0.95, 310, 300, 2,
    (
        Finalist(Policy.withdraw(9), (HOLDS,)),
        Finalist(Policy.withdraw(5), (HOLDS, FAILS)),
        Finalist(Policy.withdraw(4), (), "out of memory"),
    ),
    ("withdraw@3",),
)  # fmt: skip
NOISE = {"dtype": {"mean_nats": 3.7e-5, "p95_nats": 1e-4, "max_nats": 7e-4}}


@pytest.fixture
def result() -> StudyResult:
    holdout = {
        "samples": 300, "accuracy": 0.95, "reference_accuracy": 0.96, "accuracy_drop": 0.01, "accuracy_drop_low": -0.01,
        "accuracy_drop_high": 0.03, "accuracy_drop_gap": 0.007, "evaluations_of_this_holdout": 3, "limits": {},
    }  # fmt: skip
    return replace(study(), confirmation=TESTED, noise=NOISE, holdout=holdout)


def printed(*things: object, width: int = 100) -> str:
    console = Console(width=width, record=True)
    for thing in things:
        console.print(thing)
    return console.export_text()


def test_the_table_shows_every_test_in_order_and_fits_the_terminal() -> None:
    text = printed(confirmation_table(TESTED))
    lines = [line.split() for line in text.splitlines() if line.startswith("withdraw")]
    assert lines == [
        ["withdraw@9", "accuracy_drop", "0.0033", "0.0157", "0.02", "300", "holds"],
        ["withdraw@5", "accuracy_drop", "0.0033", "0.0157", "0.02", "300", "holds"],
        ["withdraw@5", "kl_nats[digits=<4>]", "0.0094", "0.0121", "0.01", "100", "fails"],
        ["withdraw@4", "out", "of", "memory"],
        ["withdraw@3", "not", "tested,", "after", "a", "failure"],
    ]


def test_a_second_look_at_the_split_is_said() -> None:
    assert "test 2 on this split" in title(TESTED)
    assert "test" not in title(replace(TESTED, looks=1)).removeprefix("tested")


def test_the_frame_keeps_every_number() -> None:
    frame = confirmation_frame(TESTED)
    assert frame["finalist"].tolist() == ["withdraw@9", "withdraw@5", "withdraw@5", "withdraw@4", "withdraw@3"]
    assert frame["upper_bound"].tolist()[:3] == [0.0157, 0.0157, 0.0121]
    assert frame["holds"].tolist()[:3] == [True, True, False]


def test_the_page_shows_the_tests_and_escapes_their_names(result: StudyResult) -> None:
    page = front_page(result)
    assert "tested with 95% confidence on 300 images" in page
    assert "kl_nats[digits=&lt;4&gt;]" in page
    assert "<4>" not in page
    assert "Tests</h2>" not in front_page(replace(result, confirmation=None))


def test_the_report_has_the_tests_as_csv(result: StudyResult, tmp_path: Path) -> None:
    paths = write_report([result], tmp_path)[result.task]
    [path] = [path for path in paths if path.name == "confirmation.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(path)[["finalist", "images"]].dropna(), pd.DataFrame(
        {"finalist": ["withdraw@9", "withdraw@5", "withdraw@5"], "images": [300.0, 300.0, 100.0]}
    ))  # fmt: skip


def test_the_terminal_ends_with_verdict_noise_and_holdout(result: StudyResult) -> None:
    console = Console(width=200, record=True)
    show_studies(console, [result], Path("runs/a/policy.json"))
    text = console.export_text()
    assert result.verdict in text
    assert "noise floor of the KL, mean in nats: dtype 3.7e-05 (max 0.0007)" in text
    assert "drop 0.010 (-0.010 to 0.030), +0.007 on the drop that it was chosen by; look 3 at this holdout" in text


def test_noise_that_was_not_measured_has_no_line(result: StudyResult) -> None:
    assert len(noise_texts(result)) == 1
    assert noise_texts(replace(result, noise={})) == []


def test_the_noise_of_the_chosen_policy_is_beside_the_floor(result: StudyResult) -> None:
    both = replace(result, policy_noise={"batch": {"mean_nats": 2e-5, "p95_nats": 1e-4, "max_nats": 3e-4}})
    assert noise_texts(both)[1] == "noise of the chosen policy's KL, mean in nats: batch 2e-05 (max 0.0003)"
    page = front_page(both)
    assert "<summary>Noise of the KL under the chosen policy</summary>" in page
    assert "<dt>batch, max_nats</dt><dd>0.0003</dd>" in page
    assert "under the chosen policy" not in front_page(result)


def test_names_of_slices_are_no_markup_of_the_terminal(result: StudyResult) -> None:
    console = Console(width=300, record=True)
    limits = {
        "accuracy_drop": {"value": 0.01, "low": -0.01, "high": 0.03, "gap": 0.007},
        "kl_nats[digits=4]": {"value": 0.0021, "low": 0.001, "high": 0.004, "gap": -0.0003},
    }
    verdict = "withdraw@9: fine; withdraw@5 failed: accuracy_drop[digits=4] 0.1"
    own = replace(result, verdict=verdict, holdout={**result.holdout, "limits": limits})
    show_studies(console, [own], Path("runs/a/policy.json"))
    text = console.export_text()
    assert verdict in text
    assert "chosen by; kl_nats[digits=4] 0.0021 (0.001 to 0.004), gap -0.0003; look 3" in text
    assert "<dt>limits, kl_nats[digits=4], gap</dt><dd>-0.0003</dd>" in front_page(own)
