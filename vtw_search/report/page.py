"""A study as one HTML page that needs no network: the front to hover over, and all rows to sort."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict
from string import Template
from typing import Any, NamedTuple

from vtw_search.report import quantities
from vtw_search.report.baselines import baselines_section
from vtw_search.report.chart import chart_html, chart_note
from vtw_search.report.confirmation import tests_section
from vtw_search.report.page_parts import PAGE, SCRIPT, STYLE
from vtw_search.report.quantities import fixed, interval_text, significant, time_text
from vtw_search.report.transfer import sharing_section
from vtw_search.results import Row, StudyResult
from vtw_search.transfer import Sharing

_HEADERS = ("K", "policy", "KL, nats", "accuracy", "drop", "agreement", "macs", "% of all", "time ratio", "status")
_TEXT_COLUMNS = ("policy", "status")


class _Cell(NamedTuple):
    """What a cell shows and what it is sorted by; an empty key sorts last in both directions."""

    text: str
    key: str
    interval: str = ""
    numeric: bool = True


def front_page(result: StudyResult, sharing: Sharing | None = None) -> str:
    """Return the page, with plotly.js (about 5 MB) and all styles and scripts inside.

    Every text of the study is escaped, and the page's own security policy forbids it to load anything.
    """
    return Template(PAGE).substitute(
        style=STYLE,
        script=SCRIPT,
        task=html.escape(result.task),
        verdict=html.escape(result.verdict),
        samples=html.escape(quantities.samples_text(result)),
        kl=html.escape(quantities.kl_name([result])),
        figure=chart_html(result),
        figure_note=html.escape(chart_note(result)),
        headers="".join(map(_header, _HEADERS)),
        rows="\n".join(_table_row(row) for row in result.rows),
        tests=tests_section(result.confirmation, "Tests"),
        baselines=baselines_section(result),
        sharing=sharing_section(sharing),
        limits=_settings("Limits", result.limits),
        racing=_settings("Racing", asdict(result.racing) if result.racing else {}),
        noise=_settings("Noise floor of the KL, without any policy", _flat(result.noise)),
        policy_noise=_settings("Noise of the KL under the chosen policy", _flat(result.policy_noise)),
        holdout=_settings("Chosen policy on the holdout split", _flat(result.holdout)),
        identity=_settings("What identifies the measurements", result.identity),
    )


def _header(text: str) -> str:
    kind = "" if text in _TEXT_COLUMNS else ' class="number"'
    return f'<th scope="col"{kind}><button type="button">{html.escape(text)}</button></th>'


def _table_row(row: Row) -> str:
    kind = "chosen" if row.chosen else "" if row.feasible else "broken"
    return f'<tr class="{kind}">{"".join(_cell_html(cell) for cell in _cells(row))}</tr>'


def _cell_html(cell: _Cell) -> str:
    kind = ' class="number"' if cell.numeric else ""
    interval = f" <small>{html.escape(cell.interval)}</small>" if cell.interval else ""
    return f'<td{kind} data-sort="{html.escape(cell.key)}">{html.escape(cell.text)}{interval}</td>'


def _cells(row: Row) -> list[_Cell]:
    numbers, kl, drop = row.measurement, quantities.kl(row), quantities.accuracy_drop(row)
    marks = ["★ chosen"] * row.chosen + ["on the front"] * row.on_front
    return [
        _number(quantities.layer_name(row), numbers.layer),
        _Cell(numbers.policy.label(), numbers.policy.label(), numeric=False),
        _number(significant(kl.value), kl.value, interval_text(kl, significant)),
        _number(fixed(numbers.accuracy), numbers.accuracy),
        _number(fixed(drop.value), drop.value, interval_text(drop, fixed)),
        _number(fixed(numbers.agreement), numbers.agreement),
        _number(quantities.humanised(numbers.macs), numbers.macs),
        _number(fixed(quantities.macs_percent(row), 1), quantities.macs_percent(row)),
        _number(time_text(row) or "-", numbers.latency_ratio),
        _Cell(", ".join([*marks, row.status]), row.status, numeric=False),
    ]


def _number(text: str, value: float | None, interval: str = "") -> _Cell:
    return _Cell(text, "" if quantities.finite(value) is None else repr(value), interval)


def _settings(title: str, settings: Mapping[str, Any]) -> str:
    known = [(name, value) for name, value in settings.items() if value is not None]
    if not known:
        return ""
    lines = "".join(f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(_plain(value))}</dd>" for name, value in known)
    return f"<details><summary>{title}</summary><dl>{lines}</dl></details>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under names such as `dtype, mean_nats`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}, ") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
