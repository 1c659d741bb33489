"""The chart of the page: accuracy against multiply-adds, to hover over. It needs no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vtw_search.report import drawing, kinds, quantities
from vtw_search.report.front import baseline_points, front_corners, front_points
from vtw_search.report.quantities import fixed, interval_text, significant, time_text
from vtw_search.results import Row, StudyResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

_Points = Sequence[tuple[Row, float, float]]
_BROKEN, _HOLDS, _CHOSEN = "a limit is broken", "every limit holds", "chosen"


def chart_html(result: StudyResult) -> str:
    """Return the chart with plotly.js (about 5 MB) inside."""
    import plotly.io

    # Plotly shows a button that uploads the chart, and a logo with a link, unless told not to.
    config = {"showSendToCloud": False, "displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}
    figure = _figure(result)
    # A fixed id makes the same study give the same bytes.
    return str(plotly.io.to_html(figure, config, include_plotlyjs=True, full_html=False, div_id="front-plot"))


def chart_note(result: StudyResult) -> str:
    """Return how the chart is read."""
    if kinds.by_layer(result):
        return "Numbers are the layer K from which no visual token is seen; the line is the front."
    return "Colours and shapes say which operators act, in their order; open: a limit is broken; the line is the front."


def _figure(result: StudyResult) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure(layout=_layout())
    corners, limit = front_corners(result), drawing.accuracy_limit(result)
    if limit is not None:
        line = {"dash": "dash", "color": drawing.INK, "width": 1.2}
        figure.add_hline(limit[0], line=line, annotation_text=limit[1], annotation_position="bottom right")
    x, y = zip(*corners, strict=True) if corners else ((), ())
    step = {"color": drawing.BLUE, "shape": "hv", "width": 2}
    figure.add_scatter(x=x, y=y, mode="lines", line=step, hoverinfo="skip", name="front")
    (_add_layers if kinds.by_layer(result) else _add_kinds)(figure, result)
    baselines = baseline_points(result)
    if baselines:
        _add_points(figure, baselines, "baseline", drawing.INK, "x-thin-open", 10, labelled=False)
    return figure


def _add_layers(figure: go.Figure, result: StudyResult) -> None:
    """Add points that K tells apart: colours say what the limits say."""
    for name, (color, symbol, size) in _GROUPS.items():
        _add_points(figure, _of_group(result, name), name, color, symbol, size, labelled=True)


# What a row is -> colour, symbol and size of its point, in the order of drawing.
_GROUPS = {
    _BROKEN: (drawing.GREY, "circle-open", 9),
    _HOLDS: (drawing.BLUE, "circle", 9),
    _CHOSEN: (drawing.VERMILLION, "star", 18),
}


def _add_kinds(figure: go.Figure, result: StudyResult) -> None:
    """Add points whose colour and shape say which operators act; they are open where a limit is broken."""
    marks = kinds.marks_of(result)
    for kind, mark in marks.items():
        for group, symbol in {_BROKEN: f"{mark.symbol}-open", _HOLDS: mark.symbol}.items():
            points = [each for each in _of_group(result, group) if kinds.kind_of(each[0].measurement.policy) == kind]
            if points:
                name = kind if group == _HOLDS else f"{kind}, {group}"
                _add_points(figure, points, name, mark.color, symbol, 9, labelled=False)
    chosen = f"{_CHOSEN}: {kinds.kind_of(result.chosen.measurement.policy)}"
    _add_points(figure, _of_group(result, _CHOSEN), chosen, *_GROUPS[_CHOSEN], labelled=False)


def _of_group(result: StudyResult, group: str) -> _Points:
    return [point for point in front_points(result) if _group(point[0]) == group]


def _group(row: Row) -> str:
    return _CHOSEN if row.chosen else _HOLDS if row.feasible else _BROKEN


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
    figure: go.Figure, points: _Points, name: str, color: str, symbol: str, size: int, *, labelled: bool
) -> None:
    figure.add_scatter(
        x=[x for _, x, _ in points],
        y=[y for _, _, y in points],
        mode="markers+text" if labelled else "markers",
        name=name,
        marker={"color": color, "symbol": symbol, "size": size, "line": {"width": 1.5, "color": color}},
        text=[quantities.layer_name(row) for row, _, _ in points] if labelled else None,
        textposition="top center",
        textfont={"color": color, "size": 16 if symbol == "star" else 12},
        hovertext=[_hover(row) for row, _, _ in points],
        hoverinfo="text",
    )


def _hover(row: Row) -> str:
    """Return the lines of a point's box; plotly reads tags in it, so what is written must be escaped."""
    numbers = row.measurement
    lines = {
        "KL": f"{significant(quantities.kl(row).value)} nats {interval_text(quantities.kl(row), significant)}",
        "accuracy": f"{fixed(numbers.accuracy)} {interval_text(quantities.accuracy(row), fixed)}",
        "drop": f"{fixed(numbers.accuracy_drop)} {interval_text(quantities.accuracy_drop(row), fixed)}",
        "macs": f"{quantities.humanised(numbers.macs)} ({fixed(quantities.macs_percent(row), 1)} % of keep-all)",
        "time": time_text(row) or "not measured",
        "status": row.status + (", chosen" if row.chosen else ""),
    }
    title = f"<b>K = {numbers.layer}</b> ({html.escape(numbers.policy.label())})"
    return "<br>".join([title, *(f"{name}: {html.escape(text)}" for name, text in lines.items())])
