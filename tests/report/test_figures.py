"""The figures: what they draw is what was measured."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text

from tests.report.studies import FAILURE, judge, keep_all_study, measure, result_of, study
from vtw_search.report import curves_figure, front_figure
from vtw_search.results import Judgement, Row, StudyResult

pytestmark = pytest.mark.filterwarnings("error")


def texts(figure: Figure) -> str:
    """Return everything that is written in a figure."""
    return " ".join(found.get_text() for found in figure.findobj(Text))


def points_of(line: Line2D) -> list[tuple[float, float]]:
    """Return the points of a line, without its gaps."""
    data = np.asarray(line.get_xydata())
    return [(float(x), float(y)) for x, y in data if np.isfinite(y)]


def brute_force_front(result: StudyResult) -> list[tuple[float, float]]:
    """Return the feasible points that no feasible point dominates, by comparing all pairs."""
    points = [
        (100 * (row.measurement.macs_ratio or 0), row.measurement.accuracy or 0)
        for row in result.rows
        if row.measurement.failure is None and all(judged.value <= judged.bound for judged in row.judgements)
    ]
    dominated = {
        point for point, other in itertools.permutations(points, 2)
        if other[0] <= point[0] and other[1] >= point[1] and other != point
    }  # fmt: skip
    return sorted(point for point in points if point not in dominated)


@pytest.mark.parametrize("middle", [1.0, 4.0, 7.5])
@pytest.mark.parametrize("kl_bound", [1e-9, 0.001, 1.0, 100.0])
def test_the_front_line_is_the_undominated_feasible_points(middle: float, kl_bound: float) -> None:
    result = study(middle=middle, kl_bound=kl_bound)
    axes = front_figure(result).axes[0]
    line = next(line for line in axes.lines if line.get_label() == "front")
    assert points_of(line) == brute_force_front(result)
    assert line.get_drawstyle() == "steps-post"


def test_all_points_are_drawn_filled_if_feasible_and_the_chosen_one_is_a_star() -> None:
    result = study()
    axes = front_figure(result).axes[0]
    points = {line.get_xdata()[0]: line for line in axes.lines if line.get_marker() in ("o", "*")}  # type: ignore[index]
    for row in result.rows:
        if row.measurement.macs_ratio is not None:
            line = points.pop(100 * row.measurement.macs_ratio)
            assert (line.get_markerfacecolor() != "white") == row.feasible
            assert (line.get_marker() == "*") == row.chosen
    assert not points


@pytest.mark.parametrize("layers", [12, 32])
def test_every_point_is_labelled_and_no_label_covers_another(layers: int) -> None:
    result = study(layers=layers, middle=layers / 4)
    figure = front_figure(result)
    figure.draw_without_rendering()
    notes = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    boxes = [Text.get_window_extent(note) for note in notes]
    assert not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))
    names = {str(row.measurement.layer) for row in result.rows if row.measurement.macs is not None and not row.chosen}
    assert {note.get_text() for note in notes} == names - {str(layers)} | {
        "all", "drop ≤ 0.02", f"chosen: K = {result.chosen.measurement.layer}",
    }  # fmt: skip


def test_labels_of_equal_points_do_not_cover_each_other() -> None:
    rows = [replace(row, measurement=measure("t", 6 + row.measurement.layer % 2)) for row in study().rows]
    figure = front_figure(result_of("t", rows))
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(note) for note in figure.axes[0].texts]
    assert not any(left.overlaps(right) for left, right in itertools.combinations(boxes, 2))


def test_curves_show_accuracy_and_kl_of_every_layer() -> None:
    result = study()
    accuracy, divergence = curves_figure([result]).axes
    rows = sorted(result.rows, key=lambda row: row.measurement.layer)
    known = [row.measurement for row in rows if row.measurement.failure is None]
    assert points_of(accuracy.lines[0]) == [(numbers.layer, numbers.accuracy) for numbers in known]
    floored = [(numbers.layer, numbers.kl_answer_nats or pytest.approx(1e-5)) for numbers in known]
    assert points_of(divergence.lines[0]) == floored


def test_limits_and_the_chosen_layer_are_marked() -> None:
    figure = curves_figure([study()])
    accuracy, divergence = figure.axes
    assert pytest.approx(0.914 - 0.02) in _levels(accuracy)
    assert 0.01 in _levels(divergence)
    assert "chosen\nK = 7" in texts(figure)
    assert "withdrawal layer K (0-based; K = L keeps all)" in texts(figure)


def _levels(axes: Axes) -> list[float]:
    return [float(line.get_ydata()[0]) for line in axes.lines if line.get_linestyle() == "--"]  # type: ignore[index, arg-type]


def test_the_axis_that_columns_share_holds_every_divergence() -> None:
    first, second = study("near", middle=1.0), study("far")
    small = {"kl_answer_nats": 1e-4, "kl_answer_nats_low": 1e-4, "kl_answer_nats_high": 1e-4}
    changed = [row.measurement.model_copy(update=small) for row in first.rows]
    panels = curves_figure([replace(first, rows=tuple(Row(each, judge(each)) for each in changed)), second]).axes[2:]
    largest = max(value for _, value in points_of(panels[1].lines[0]))
    assert all(panel.get_ylim()[0] < 1e-5 < largest < panel.get_ylim()[1] for panel in panels)


def test_zero_divergence_is_drawn_at_a_floor_that_is_stated() -> None:
    figure = curves_figure([study()])
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert "≤ 1e-5" in labels
    assert "A KL at or below 1e-5, such as 0, is drawn there" in texts(figure)


def test_one_column_per_task_and_failures_are_listed_once_per_reason() -> None:
    figure = curves_figure([study("a"), keep_all_study("b"), study("c", layers=32, middle=9)])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]
    assert len(figure.axes) == 6
    assert texts(figure).count("cannot be cropped") == 1
    assert "a K = 3; b K = 3; c K = 3" in texts(figure)


def test_the_front_lists_what_it_does_not_draw() -> None:
    result = study()
    rows = [*result.rows, Row(measure("digits_read", 5, macs=None, macs_ratio=None), ())]
    written = texts(front_figure(replace(result, rows=tuple(rows))))
    assert FAILURE in written
    assert "no macs or no accuracy: K = 5" in written


def _failed_but_keep_all() -> StudyResult:
    rows = study().rows
    failed = [Row(row.measurement.model_copy(update={"failure": "x"}), ()) for row in rows[1:]]
    return result_of("t", [replace(rows[0], chosen=True, on_front=True), *failed])


def _not_finite() -> StudyResult:
    odd = measure(
        "t", 5, accuracy=float("nan"), accuracy_drop_low=float("-inf"), kl_answer_nats_low=float("-inf"),
        kl_answer_nats_high=float("inf"), accuracy_low=float("-inf"), accuracy_high=float("inf"),
    )  # fmt: skip
    judged = Judgement("kl_nats", 0.0, float("inf"), float("-inf"), float("inf"), "kl_nats inf > 0")
    return replace(study(), rows=(*study().rows, Row(odd, judge(odd)), Row(odd, (judged,))))


def _no_limits() -> StudyResult:
    return result_of("t", [replace(row, judgements=()) for row in study().rows])


def _one_row() -> StudyResult:
    row = Row(measure("t", 12), (), chosen=True, on_front=True)
    return result_of("t", [row])


def _hostile() -> StudyResult:
    result = study(task="$\\frac{$ " + "long " * 60)
    return replace(result, verdict="$\\frac{$ 50 % & more " * 20)


@pytest.mark.parametrize("build", [_failed_but_keep_all, _not_finite, _no_limits, _one_row, _hostile, keep_all_study])
def test_odd_studies_are_drawn(build: object) -> None:
    assert callable(build)
    result = build()
    for figure in (front_figure(result), curves_figure([result]), curves_figure([study(), result])):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        stream.seek(0)
        assert imread(stream, format="png").std() > 0.01


def test_curves_need_a_result() -> None:
    with pytest.raises(ValueError, match="at least one"):
        curves_figure([])
