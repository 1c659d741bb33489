"""How each task's policy does on the others, and what one policy for all costs: tables and a part of the page."""

from __future__ import annotations

import html
from collections.abc import Mapping

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from vtw_search.report import quantities
from vtw_search.report.confirmation import tests_section
from vtw_search.report.quantities import fixed
from vtw_search.results import Row
from vtw_search.transfer import Price, Sharing

NOTE = "Accuracy drop, KL in nats and share of keep-all's macs on what the search saw, by the limits of that task"
_HOT = 0.1  # an accuracy drop from here on has the full colour
_LABEL = 28


def transfer_table(sharing: Sharing) -> Table:
    """Return the transfer table for a terminal: a line per policy, a column per task; what breaks a limit is red."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), show_lines=True)
    table.title, table.title_justify = Text("each task's policy on the others", style="bold"), "left"
    table.caption, table.caption_justify = Text(f"{NOTE}; red: a limit is broken"), "left"
    table.add_column("policy of", overflow="fold")
    for task in sharing.tasks:
        table.add_column(Text(f"on {task}"), overflow="fold")
    for name, rows in sharing.lines():
        cells = [Text("\n".join(cell_lines(rows[task])), style=_style(rows[task])) for task in sharing.tasks]
        table.add_row(Text(line_label(name, rows)), *cells)
    return table


def _style(row: Row) -> str:
    return "" if row.feasible else "red"


def line_label(name: str, rows: Mapping[str, Row]) -> str:
    """Return what a policy is for, and its own short name."""
    return f"{name}\n{quantities.one_line(next(iter(rows.values())).measurement.policy.label(), _LABEL)}"


def cell_lines(row: Row) -> list[str]:
    """Return the numbers of a policy on a task, one a line; a row that failed says so."""
    if row.measurement.failure is not None:
        return ["failed"]
    kl = quantities.kl(row).value
    return [
        f"drop {fixed(quantities.accuracy_drop(row).value)}",
        f"KL {'-' if kl is None else f'{kl:.2g}'}",
        f"macs {fixed(quantities.macs_percent(row), 0)}%",
    ]


def price_lines(sharing: Sharing) -> list[str]:
    """Return what each task pays for the shared policy, and all of them; nothing without one."""
    if sharing.shared is None:
        return []
    shared = sharing.shared
    lines = [f"{task}: {_price(price)} per prefill" for task, price in shared.prices.items()]
    return [*lines, f"all together: {_price(shared.total)} over a prefill of each"]


def _price(price: Price) -> str:
    own, shared = (100 * macs / price.keep_all for macs in (price.own, price.shared))
    lost = f"{quantities.humanised(abs(price.lost))} macs {'more' if price.lost >= 0 else 'fewer'}"
    return f"{shared:.1f}% of keep-all's macs instead of {own:.1f}%, {lost}"


def transfer_frame(sharing: Sharing) -> pd.DataFrame:
    """Return one row per policy and task, for CSV."""
    return pd.DataFrame([
        {
            "policy_of": name, "policy": row.measurement.policy.label(), "measured_on": task,
            "accuracy_drop": quantities.accuracy_drop(row).value,
            "accuracy_drop_low": quantities.accuracy_drop(row).low,
            "accuracy_drop_high": quantities.accuracy_drop(row).high, "kl_nats": quantities.kl(row).value,
            "macs_ratio": row.measurement.macs_ratio, "feasible": row.feasible, "status": row.status,
        }
        for name, rows in sharing.lines()
        for task, row in rows.items()
    ])  # fmt: skip


def sharing_section(sharing: Sharing | None) -> str:
    """Return the table as a heat map and the shared policy as a part of a page, every text escaped."""
    if sharing is None:
        return ""
    heads = "".join(f"<th>on {html.escape(task)}</th>" for task in sharing.tasks)
    body = "\n".join(_line_html(name, rows, sharing.tasks) for name, rows in sharing.lines())
    prices = "".join(f"<li>{html.escape(line)}</li>" for line in price_lines(sharing))
    return (
        "<h2>Each task's policy on the others</h2>\n"
        f'<p class="note">{html.escape(NOTE)}. The darker, the larger the drop; &#10007;: a limit is broken.</p>\n'
        f'<div class="wide"><table class="heat"><thead><tr><th>policy of</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>\n"
        f"<h2>One policy for all tasks</h2>\n<p>{html.escape(sharing.verdict)}</p>\n<ul>{prices}</ul>\n"
        f"{tests_section(sharing.confirmation, 'Tests of one policy for all tasks')}"
    )


def _line_html(name: str, rows: Mapping[str, Row], tasks: tuple[str, ...]) -> str:
    label = rows[tasks[0]].measurement.policy.label()
    cells = "".join(_cell_html(rows[task]) for task in tasks)
    return f"<tr><th>{html.escape(name)}<br><small>{html.escape(label)}</small></th>{cells}</tr>"


def _cell_html(row: Row) -> str:
    heat = heat_of(row)
    style = f"background: rgba(213, 94, 0, {0.75 * heat:.2f})"
    mark = "" if row.feasible else " &#10007;"
    text = "<br>".join(html.escape(line) for line in cell_lines(row))
    return f'<td style="{style}" title="{html.escape(row.status)}">{text}{mark}</td>'


def heat_of(row: Row) -> float:
    """Return how strongly a cell is coloured, from 0 for no drop to 1; a row that failed is as hot as can be."""
    drop = quantities.accuracy_drop(row).value
    return 1.0 if drop is None else min(max(drop / _HOT, 0.0), 1.0)
