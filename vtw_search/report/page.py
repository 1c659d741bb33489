"""A study as one HTML page that needs no network: the front to hover over, and all rows to sort."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

from vtw_search.report import drawing, quantities
from vtw_search.report.confirmation import tests_section
from vtw_search.report.front import front_corners, front_points
from vtw_search.report.page_parts import PAGE, SCRIPT, STYLE
from vtw_search.report.quantities import Quantity, fixed
from vtw_search.results import Row, StudyResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HEADERS = ("K", "policy", "KL, nats", "accuracy", "drop", "agreement", "macs", "% of all", "time ratio", "status")
_TEXT_COLUMNS = ("policy", "status")


class _Cell(NamedTuple):
    """What a cell shows and what it is sorted by; an empty key sorts last in both directions."""

    text: str
    key: str
    interval: str = ""
    numeric: bool = True


def front_page(result: StudyResult) -> str:
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
        figure=_figure_html(result),
        headers="".join(map(_header, _HEADERS)),
        rows="\n".join(_table_row(row) for row in result.rows),
        tests=tests_section(result.confirmation),
        limits=_settings("Limits", result.limits),
        racing=_settings("Racing", asdict(result.racing) if result.racing else {}),
        noise=_settings("Noise floor of the KL, without any policy", _noise(result)),
        holdout=_settings("Chosen policy on the holdout split", result.holdout),
        identity=_settings("What identifies the measurements", result.identity),
    )


def _figure_html(result: StudyResult) -> str:
    import plotly.io

    # Plotly shows a button that uploads the chart, and a logo with a link, unless told not to.
    config = {"showSendToCloud": False, "displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}
    figure = _figure(result)
    # A fixed id makes the same study give the same bytes.
    return str(plotly.io.to_html(figure, config, include_plotlyjs=True, full_html=False, div_id="front-plot"))


def _figure(result: StudyResult) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure(layout=_layout())
    points, corners, limit = front_points(result), front_corners(result), drawing.accuracy_limit(result)
    if limit is not None:
        line = {"dash": "dash", "color": drawing.INK, "width": 1.2}
        figure.add_hline(limit[0], line=line, annotation_text=limit[1], annotation_position="bottom right")
    x, y = zip(*corners, strict=True) if corners else ((), ())
    step = {"color": drawing.BLUE, "shape": "hv", "width": 2}
    figure.add_scatter(x=x, y=y, mode="lines", line=step, hoverinfo="skip", name="front")
    for name, marks in _GROUPS.items():
        _add_points(figure, [point for point in points if _group(point[0]) == name], name, *marks)
    return figure


# What a row is -> colour, symbol and size of its point, in the order of drawing.
_GROUPS = {
    "a limit is broken": (drawing.GREY, "circle-open", 9),
    "every limit holds": (drawing.BLUE, "circle", 9),
    "chosen": (drawing.VERMILLION, "star", 18),
}


def _group(row: Row) -> str:
    return "chosen" if row.chosen else "every limit holds" if row.feasible else "a limit is broken"


def _layout() -> dict[str, Any]:
    font = {"family": "system-ui, sans-serif", "size": 14, "color": "#222"}
    return {
        "template": "plotly_white",
        "font": font,
        "height": 480,
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": font | {"size": 13}},
        "xaxis": {"title": {"text": "multiply-adds of one prefill, % of keep-all"}, "zeroline": False},
        "yaxis": {"title": {"text": "accuracy"}, "zeroline": False},
    }


def _add_points(
    figure: go.Figure, points: Sequence[tuple[Row, float, float]], name: str, color: str, symbol: str, size: int
) -> None:
    figure.add_scatter(
        x=[x for _, x, _ in points],
        y=[y for _, _, y in points],
        mode="markers+text",
        name=name,
        marker={"color": color, "symbol": symbol, "size": size, "line": {"width": 1.5, "color": color}},
        text=[quantities.layer_name(row) for row, _, _ in points],
        textposition="top center",
        textfont={"color": color, "size": 16 if symbol == "star" else 12},
        hovertext=[_hover(row) for row, _, _ in points],
        hoverinfo="text",
    )


def _hover(row: Row) -> str:
    """Return the lines of a point's box; plotly reads tags in it, so what is written must be escaped."""
    numbers = row.measurement
    lines = {
        "KL": f"{_significant(quantities.kl(row).value)} nats {_interval(quantities.kl(row), _significant)}",
        "accuracy": f"{fixed(numbers.accuracy)} {_interval(quantities.accuracy(row), fixed)}",
        "drop": f"{fixed(numbers.accuracy_drop)} {_interval(quantities.accuracy_drop(row), fixed)}",
        "macs": f"{quantities.humanised(numbers.macs)} ({fixed(quantities.macs_percent(row), 1)} % of keep-all)",
        "time": _time(row) or "not measured",
        "status": row.status + (", chosen" if row.chosen else ""),
    }
    title = f"<b>K = {numbers.layer}</b> ({html.escape(numbers.policy.label())})"
    return "<br>".join([title, *(f"{name}: {html.escape(text)}" for name, text in lines.items())])


def _significant(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _interval(quantity: Quantity, write: Callable[[float | None], str]) -> str:
    return "" if quantity.interval is None else "[{}, {}]".format(*(write(end) for end in quantity.interval))


def _time(row: Row) -> str:
    ratio = quantities.finite(row.measurement.latency_ratio)
    if ratio is None:
        return ""
    low, high = row.measurement.latency_ratio_low, row.measurement.latency_ratio_high
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]" + (" ?" if row.measurement.latency_problems else "")


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
        _number(_significant(kl.value), kl.value, _interval(kl, _significant)),
        _number(fixed(numbers.accuracy), numbers.accuracy),
        _number(fixed(drop.value), drop.value, _interval(drop, fixed)),
        _number(fixed(numbers.agreement), numbers.agreement),
        _number(quantities.humanised(numbers.macs), numbers.macs),
        _number(fixed(quantities.macs_percent(row), 1), quantities.macs_percent(row)),
        _number(_time(row) or "-", numbers.latency_ratio),
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


def _noise(result: StudyResult) -> dict[str, float]:
    return {f"{variation}, {name}": value for variation, row in result.noise.items() for name, value in row.items()}


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
