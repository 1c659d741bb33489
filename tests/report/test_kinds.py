"""Pictures and pages of searches over more than one sort of policy, with baselines among them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from tests.report.studies import judge, measure, result_of, study
from vtw_search.policies import Policy, ScorerChoice, Stage
from vtw_search.report import curves_figure, front_figure, front_page
from vtw_search.report.baselines import baselines_frame
from vtw_search.report.curves import has_curve
from vtw_search.report.kinds import by_layer, is_withdrawal, kind_of, marks_of
from vtw_search.results import Baseline, Row, StudyResult

pytestmark = pytest.mark.filterwarnings("error")


def prune(layer: int, scorer: str = "text_to_visual") -> Stage:
    return Stage(layer=layer, operator="prune", keep=0.5, scorer=ScorerChoice(name=scorer))


def withdraw(layer: int) -> Stage:
    return Stage(layer=layer, operator="withdraw")


RANDOM = Policy(stages=(Stage(layer=1, operator="prune", keep=5, scorer=ScorerChoice(name="random")),))
POOLED = Policy(stages=(Stage(site="vision", layer=0, operator="downsample", keep=0.25),))


@pytest.mark.parametrize(
    "policy,name",
    [
        (Policy.keep_all(), "keep all"),
        (Policy.withdraw(3), "withdraw"),
        (Policy(stages=(prune(2), prune(5), withdraw(7))), "2 x prune (text_to_visual) + withdraw"),
        (Policy(stages=(prune(2), prune(5, "visual_received"))), "prune (text_to_visual) + prune (visual_received)"),
        (POOLED, "downsample"),
    ],
)
def test_a_kind_is_which_operators_act_in_which_order(policy: Policy, name: str) -> None:
    assert kind_of(policy) == name
    assert is_withdrawal(policy) == (name in ("keep all", "withdraw"))


@pytest.fixture
def mixed() -> StudyResult:
    """Withdrawals, prunings and pairs; the chosen policy is a pair, and there are two baselines."""
    policies = [
        Policy.keep_all(), *(Policy.withdraw(layer) for layer in (4, 8)),
        *(Policy(stages=(prune(layer),)) for layer in (2, 3)), Policy(stages=(prune(2), withdraw(9))),
    ]  # fmt: skip
    rows = []
    for place, policy in enumerate(policies):
        layer = policy.stages[0].layer if policy.stages else 12
        numbers = measure("t", 12 if not place else 3 + place).model_copy(update={"policy": policy, "layer": layer})
        rows.append(Row(numbers, judge(numbers, kl_bound=1.0), chosen=place == 5, on_front=place in (4, 5)))
    baselines = [
        Row(measure("t", layer).model_copy(update={"policy": policy}), ())
        for layer, policy in ((5, RANDOM), (6, POOLED))
    ]
    result = result_of("t", rows)
    return replace(
        result, baselines=(Baseline(baselines[0], 0.1, 0.05, 0.15), Baseline(baselines[1], 0.0, -0.02, 0.02))
    )


def test_the_legend_fits_the_figure_and_a_limit_is_written_beside_no_point(mixed: StudyResult) -> None:
    pair = Policy(stages=(prune(2, "image_text_relevance"), prune(5, "visual_received"), prune(7, "image_text_score")))
    rows = [
        replace(row, measurement=row.measurement.model_copy(update={"policy": pair})) if place == 3 else row
        for place, row in enumerate(mixed.rows)
    ]
    # Points at the left end, right above the limit, where its text stands otherwise.
    near = [measure("t", layer, accuracy=0.9, macs_ratio=0.28, policy=RANDOM) for layer in (1, 2)]
    baselines = [Baseline(Row(each, ()), 0.1, 0.05, 0.15) for each in near]
    figure = front_figure(replace(mixed, rows=tuple(rows), baselines=tuple(baselines)))
    figure.draw_without_rendering()
    axes, page = figure.axes[0], figure.bbox
    legend = axes.get_legend()
    assert legend is not None
    box, plot = legend.get_window_extent(), axes.get_window_extent()
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert plot.y1 <= box.y0
    assert plot.width > 0.8 * page.width
    [limit] = [text.get_window_extent() for text in axes.texts if text.get_text().startswith("drop")]
    assert not any(limit.contains(*axes.transData.transform((28, row.accuracy))) for row in near)


def test_kinds_have_colours_and_markers_of_their_own_and_a_legend(mixed: StudyResult) -> None:
    assert not by_layer(mixed)
    marks = marks_of(mixed)
    assert list(marks) == [
        "keep all", "withdraw", "prune (text_to_visual)", "prune (text_to_visual) + withdraw",
    ]  # fmt: skip
    assert len({(mark.color, mark.marker) for mark in marks.values()}) == len(marks)
    axes = front_figure(mixed).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {
        *marks, "front", "baseline: random tokens", "baseline: coarser grid",
    }  # fmt: skip
    for row in mixed.rows:
        own = row.measurement
        [line] = [
            line for line in axes.lines
            if list(line.get_xdata()) == [100 * (own.macs_ratio or 0)] and line.get_marker() not in ("x", "+")
        ]  # fmt: skip
        expected = "*" if row.chosen else marks[kind_of(own.policy)].marker
        assert line.get_marker() == expected


def test_baselines_are_drawn_at_their_numbers(mixed: StudyResult) -> None:
    axes = front_figure(mixed).axes[0]
    for shape, baseline in zip("x+", mixed.baselines, strict=True):
        own = baseline.row.measurement
        [line] = [line for line in axes.lines if line.get_marker() == shape]
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([100 * (own.macs_ratio or 0)], [own.accuracy])


def test_only_the_chosen_one_is_labelled_where_k_does_not_tell_policies_apart(mixed: StudyResult) -> None:
    figure = front_figure(mixed)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in texts if text.startswith("chosen")] == [
        "chosen: prune@2:0.5:text_to_visual + withdraw@9"
    ]  # fmt: skip
    assert "4" not in texts
    written = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "Colours: which operators act" in written


def test_the_curve_over_k_has_withdrawals_alone(mixed: StudyResult) -> None:
    accuracy, _ = curves_figure([mixed]).axes
    assert list(accuracy.lines[0].get_xdata()) == [4, 8, 12]
    assert "chosen" not in " ".join(text.get_text() for text in accuracy.texts)
    assert has_curve(mixed)
    assert not has_curve(replace(mixed, rows=(mixed.rows[0], *mixed.rows[3:])))


def test_the_page_has_a_group_per_kind_and_the_baselines_with_intervals(mixed: StudyResult) -> None:
    page = front_page(mixed)
    for text in ("chosen: prune (text_to_visual) + withdraw", "baseline", "triangle-up", "square"):
        assert text in page
    assert "+0.100</td><td>+0.050 to +0.150" in page
    assert "Baselines</h2>" in page
    assert "Baselines</h2>" not in front_page(study())
    assert baselines_frame(mixed)["advantage_low"].tolist() == [0.05, -0.02]


def test_the_label_of_the_chosen_policy_covers_no_baseline() -> None:
    result = study()

    def label(drawn: StudyResult) -> tuple[Any, Any]:
        figure = front_figure(drawn)
        figure.draw_without_rendering()
        axes = figure.axes[0]
        return axes, next(text for text in axes.texts if text.get_text().startswith("chosen")).get_window_extent()

    axes, box = label(result)
    percent, accuracy = axes.transData.inverted().transform(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
    covered = measure("t", 7, accuracy=accuracy, macs_ratio=percent / 100, policy=RANDOM)
    axes, box = label(replace(result, baselines=(Baseline(Row(covered, ()), 0.0, -0.1, 0.1),)))
    assert not box.contains(*axes.transData.transform((percent, accuracy)))


def test_baselines_join_the_labelled_picture_of_withdrawals(mixed: StudyResult) -> None:
    figure = front_figure(replace(study(), baselines=mixed.baselines))
    assert {line.get_marker() for line in figure.axes[0].lines} >= {"x", "+", "o", "*"}
    for built in (figure, front_figure(mixed), curves_figure([study(), mixed])):
        stream = io.BytesIO()
        built.savefig(stream, format="png")
        stream.seek(0)
        assert imread(stream, format="png").std() > 0.01
