"""The baselines beside the chosen policy: as a table, as CSV, and as a part of the page."""

from __future__ import annotations

import html

import pandas as pd

from vtw_search.report.quantities import fixed
from vtw_search.results import Baseline, StudyResult

NOTE = (
    "Random tokens at the macs of the chosen policy, and the grid poolings around them. Advantage: accuracy of the "
    "chosen policy minus the baseline's, paired by sample of the selection split, with its 95 % interval."
)
_COLUMNS = ("baseline", "accuracy", "macs, % of all", "advantage of the chosen policy", "95 % interval")


def baselines_frame(result: StudyResult) -> pd.DataFrame:
    """Return one row per baseline."""
    return pd.DataFrame([
        {
            "baseline": each.row.measurement.policy.label(), "accuracy": each.row.measurement.accuracy,
            "macs_ratio": each.row.measurement.macs_ratio, "advantage": each.advantage,
            "advantage_low": each.low, "advantage_high": each.high,
        }
        for each in result.baselines
    ])  # fmt: skip


def baselines_section(result: StudyResult) -> str:
    """Return the baselines as a part of a page, every text escaped; nothing without any."""
    if not result.baselines:
        return ""
    heads = "".join(f"<th>{html.escape(text)}</th>" for text in _COLUMNS)
    lines = "\n".join(f"<tr>{''.join(map(_cell, _cells(each)))}</tr>" for each in result.baselines)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<h2>Baselines</h2>\n<p class="note">{html.escape(NOTE)}</p>\n<div class="wide">{table}</div>'


def _cells(baseline: Baseline) -> tuple[str, ...]:
    own = baseline.row.measurement
    percent = None if own.macs_ratio is None else 100 * own.macs_ratio
    interval = f"{baseline.low:+.3f} to {baseline.high:+.3f}"
    return own.policy.label(), fixed(own.accuracy), fixed(percent, 1), f"{baseline.advantage:+.3f}", interval


def _cell(text: str) -> str:
    return f"<td>{html.escape(text)}</td>"
