"""The tests of the finalists as tables, and noise as sentences."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from vtw_search.results import Bounded, Confirmation, StudyResult

_COLUMNS = ("finalist", "limit", "estimate", "at most", "bound", "images", "")


def confirmation_table(confirmation: Confirmation) -> Table:
    """Return every test in the order in which it was made; those after the first failure are named."""
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify = Text(title(confirmation), style="bold"), "left"
    for label, test, failure in _lines(confirmation):
        if test is None:
            table.add_row(label, *[""] * 5, Text(failure, style="red"))
        else:
            numbers = [f"{number:.3g}" for number in (test.value, test.upper, test.bound)]
            style, word = ("green", "holds") if test.holds else ("red", "fails")
            table.add_row(label, Text(test.limit), *numbers, str(test.images), Text(word, style=style))
    return table


def title(confirmation: Confirmation) -> str:
    """Return what was tested on what, with which confidence."""
    images = f"{confirmation.images} images of the confirmation split"
    return f"tested with {confirmation.level:.0%} confidence on {images}, safest first{confirmation.repeated}"


def _lines(confirmation: Confirmation) -> Iterator[tuple[str, Bounded | None, str]]:
    for finalist in confirmation.finalists:
        label = finalist.policy.label()
        if finalist.failure is not None:
            yield label, None, finalist.failure
        for test in finalist.tests:
            yield label, test, ""
    for label in confirmation.untested:
        yield label, None, "not tested, after a failure"


def confirmation_frame(confirmation: Confirmation) -> pd.DataFrame:
    """Return one row per test, for CSV and pages."""
    rows = [
        {
            "finalist": label, "limit": test and test.limit, "estimate": test and test.value,
            "upper_bound": test and test.upper, "bound": test and test.bound, "images": test and test.images,
            "method": test and test.method, "holds": test.holds if test else None, "note": note,
        }
        for label, test, note in _lines(confirmation)
    ]  # fmt: skip
    names = ("finalist", "limit", "estimate", "upper_bound", "bound", "images", "method", "holds", "note")
    return pd.DataFrame(rows, columns=list(names))


def tests_section(confirmation: Confirmation | None, heading: str) -> str:
    """Return the tests as a part of a page, every text escaped; nothing if none was asked for."""
    if confirmation is None:
        return ""
    rows = confirmation_frame(confirmation).to_html(index=False, border=0, na_rep="", justify="left", escape=True)
    return f'<h2>{heading}</h2>\n<p class="note">{html.escape(title(confirmation))}</p>\n<div class="wide">{rows}</div>'


def noise_texts(result: StudyResult) -> list[str]:
    """Return the noise floor and the noise of the chosen policy, one line each; none that was not measured."""
    measured = {"noise floor of the KL": result.noise, "noise of the chosen policy's KL": result.policy_noise}
    return [f"{name}, mean in nats: {_noise_text(noise)}" for name, noise in measured.items() if noise]


def _noise_text(noise: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {row['mean_nats']:.2g} (max {row['max_nats']:.2g})" for name, row in noise.items())
