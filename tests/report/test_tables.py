"""The terminal table and the frame for CSV."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from tests.report.studies import FAILED_LAYER, FAILURE, judge, keep_all_study, measure, result_of, study
from vtw_search.policies import Policy, Stage
from vtw_search.records import Measurement
from vtw_search.report import front_frame, study_table
from vtw_search.report.quantities import fixed, humanised
from vtw_search.results import Judgement, Row, StudyResult


def render(result: StudyResult, *, color: bool = False) -> list[str]:
    """Return the lines of the table in a terminal of 100 columns."""
    stream = io.StringIO()
    system = "standard" if color else None
    Console(width=100, file=stream, force_terminal=color, color_system=system).print(study_table(result))  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


def line_of(lines: list[str], layer: str) -> str:
    """Return the line that shows this K."""
    return next(line for line in lines if line.lstrip("> *").split(" ")[0] == layer)


def test_every_row_is_one_line_of_at_most_100_columns() -> None:
    lines = render(study(timed=tuple(range(1, 12))))
    assert max(map(len, lines)) <= 100
    body = lines[3 : 3 + 12]
    assert [line.lstrip("> *").split()[0] for line in body] == ["all", *map(str, range(1, 12))]


def test_the_title_has_task_and_sample_counts_and_the_caption_what_is_judged() -> None:
    lines = render(study())
    assert lines[0].strip() == "digits_read: KL over 100 calibration samples, accuracy over 300 selection samples"
    text = "\n".join(line.rstrip() for line in lines)
    assert "limits are judged on the point estimate; intervals are 95 % and only shown" in text
    assert "kl_nats=0.01" in text


def test_a_row_shows_the_numbers_of_its_measurement() -> None:
    lines = render(study())
    shown = " ".join(line_of(lines, "7").split())
    assert shown == "> 7 0.0054 [.0043, .0071] 0.910 0.004 [-.007, .017] 0.995 15.5G 70% 0.72 feasible"
    assert line_of(lines, "8").split()[-2:] == ["-", "feasible"]


def test_a_row_that_was_raced_out_is_not_taken_for_a_complete_one() -> None:
    result = study()
    rows = [
        replace(row, measurement=row.measurement.model_copy(update={"stopped": "kl_nats surely > 0.01"}))
        if row.measurement.layer == 2
        else row
        for row in result.rows
    ]
    lines = render(replace(result, rows=tuple(rows)))
    assert line_of(lines, "2").rstrip().endswith("raced out")
    assert "1 raced out, on fewer" in " ".join(" ".join(lines).split())
    assert "1 raced out, on fewer" not in " ".join(" ".join(render(result)).split())


def test_status_says_which_limits_are_broken_and_why_a_row_failed() -> None:
    lines = render(study(kl_bound=0.001))
    assert line_of(lines, "4").rstrip().endswith("no: KL, drop")
    assert line_of(lines, "7").rstrip().endswith("no: KL")
    assert line_of(lines, str(FAILED_LAYER)).rstrip().endswith("failed")
    assert any(f"failed, K = {FAILED_LAYER}: {FAILURE}" in line for line in lines)


@pytest.mark.parametrize("count,shown", [(2, "prune@1:0.5, prune@2:0.5"), (9, "9 policies")])
def test_failed_policies_that_no_layer_tells_apart_are_not_named_by_it(count: int, shown: str) -> None:
    def failed(layer: int) -> Row:
        policy = Policy(stages=(Stage(layer=layer, operator="prune", keep=0.5),))
        return Row(Measurement(task="t", policy=policy, layer=layer, failure="timed out after 1 s"), ())

    result = study()
    rows = (*(row for row in result.rows if row.measurement.failure is None), *map(failed, range(1, count + 1)))
    assert f"failed, {shown}: timed out after 1 s" in " ".join(" ".join(render(replace(result, rows=rows))).split())


def test_the_chosen_row_and_the_front_are_marked() -> None:
    lines = render(study())
    assert next(line.split()[1] for line in lines if line.lstrip().startswith(">")) == "7"
    assert [line.split()[1] for line in lines if line.lstrip().startswith("*")] == ["8", "9", "10"]
    assert line_of(render(keep_all_study()), "all").lstrip().startswith(">")


def test_status_is_green_or_red_and_a_number_over_its_limit_is_red() -> None:
    lines = render(study(kl_bound=0.001), color=True)
    row = next(line for line in lines if "15.5G" in line)
    assert "\x1b[31m0.0054 [.0043, .0071]" in row
    assert "\x1b[31m0.004" not in row
    assert any("\x1b[32mfeasible" in line or "\x1b[1;32mfeasible" in line for line in lines)


def test_the_kl_column_is_the_bounded_quantity() -> None:
    measurement = measure("t", 5)
    judged = Judgement("kl_nats", 0.003, 0.0042, 0.0040, 0.0049, "kl_nats 0.0042 > 0.003")
    result = result_of("t", [Row(measurement, (judged,), chosen=True)])
    assert "0.0042 [.0040, .0049]" in line_of(render(result), "5")
    without = result_of("t", [Row(measurement, (), chosen=True)])
    assert fixed(measurement.kl_answer_nats, 4) in line_of(render(without), "5")


def test_a_broken_first_layer_is_named_after_the_column_that_shows_it() -> None:
    row = Row(measure("t", 9), (Judgement("first_layer", 0.0, 1.0, 1.0, 1.0, "layer 9 < 10"),), chosen=True)
    assert line_of(render(result_of("t", [row])), "9").rstrip().endswith("no: K")


def test_a_time_that_is_needed_and_missing_is_named_with_its_reason() -> None:
    numbers = measure("t", 9).model_copy(update={"latency_ratio": None, "latency_problems": "not timed: so"})
    lines = render(result_of("t", [Row(numbers, (), chosen=True, untimed="not timed: so")]))
    assert line_of(lines, "9").rstrip().endswith("-  no: time")
    assert "K = 9: not timed: so" in map(str.strip, lines)


def several_stages(count: int) -> StudyResult:
    """Return keep-all and `count` policies of two stages, in an order that is not that of their macs."""
    policies = [
        Policy(stages=(Stage(layer=2, operator="prune", keep=0.5), Stage(layer=3 + place, operator="withdraw")))
        for place in range(count)
    ]
    rows = [
        Row(measure("t", 2, policy=policy, macs=1000 + place), (), chosen=place == 5, on_front=place == 60)
        for place, policy in reversed(list(enumerate(policies)))
    ]
    return result_of("t", [*rows, Row(measure("t", 12, policy=Policy(), macs=9000), ())])


def test_policies_of_several_stages_have_numbers_that_the_caption_explains() -> None:
    lines = render(several_stages(9))
    assert line_of(lines, "policy")
    assert "1005 " in line_of(lines, "#6").replace("1.00k", "1005")
    assert [line.strip() for line in lines if line.startswith("#6 ")] == ["#6 prune@2:0.5 + withdraw@8"]
    assert line_of(lines, "all")
    assert not [line for line in lines if "more policies" in line]


def test_of_many_policies_the_front_and_the_neighbours_of_the_chosen_one_are_shown() -> None:
    lines = render(several_stages(80))
    explained = [line.strip().split(" ", 1)[1] for line in lines if line.startswith("#")]
    layers = [int(label.rpartition("@")[2]) for label in explained]
    assert layers == [*range(3, 3 + 38), 63], "by rising macs: the chosen one's neighbours, then the front"
    assert "and 41 more policies, in the report" in "\n".join(lines)


def test_texts_of_users_are_not_markup() -> None:
    result = replace(study(task="[red]digits[/red] [/]"), limits={"note": "[/bold]"})
    text = "\n".join(render(result))
    assert "[red]digits[/red] [/]" in text
    assert "[/bold]" in text


def test_nan_and_infinite_numbers_are_dashes() -> None:
    measurement = measure("t", 5, accuracy=float("nan"), accuracy_drop_low=float("-inf"), latency_ratio=float("nan"))
    line = line_of(render(result_of("t", [Row(measurement, judge(measurement), chosen=True)])), "5")
    assert "nan" not in line
    assert "inf" not in line


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0"), (999, "999"), (7_840, "7.84k"), (22_137_482_240, "22.1G"), (456_000_000, "456M")],
)
def test_counts_are_humanised(count: int | None, text: str) -> None:
    assert humanised(count) == text


def test_csv_round_trip_equals_the_measurements() -> None:
    result = study()
    text = front_frame(result).to_csv(index=False)
    read = pd.read_csv(io.StringIO(text))
    names = {"layer", "policy", "feasible", "on_front", "chosen", "status", "latency_problems"}
    numeric = set(read.columns) - names | {"layer"}
    texts = {"task", "policy", "failure", "stopped", "latency_problems", "versions", "metrics"}
    assert numeric == set(Measurement.model_fields) - texts
    for (_, line), row in zip(read.iterrows(), result.rows, strict=True):
        for name in numeric:
            value = getattr(row.measurement, name)
            assert pd.isna(line[name]) if value is None else line[name] == value, name


def test_the_frame_says_which_times_are_doubtful() -> None:
    result = study()
    doubted = result.rows[7].measurement.model_copy(update={"latency_problems": "others were busy"})
    rows = tuple(replace(row, measurement=doubted) if row is result.rows[7] else row for row in result.rows)
    frame = front_frame(replace(result, rows=rows))
    assert frame["latency_problems"].dropna().to_dict() == {7: "others were busy"}


def test_the_frame_says_how_each_row_was_judged() -> None:
    result = study()
    frame = front_frame(result).set_index("layer")
    assert list(front_frame(result).columns[:6]) == ["layer", "policy", "feasible", "on_front", "chosen", "status"]
    assert frame.index[frame["chosen"]].tolist() == [7]
    assert frame.index[frame["on_front"]].tolist() == [7, 8, 9, 10]
    assert frame.loc[12, "policy"] == Policy.keep_all().label()
    assert frame.loc[FAILED_LAYER, "status"] == f"failed: {FAILURE}"
    assert frame.loc[6, "status"] == result.rows[6].status
    assert str(frame["macs"].dtype) == "Int64"
