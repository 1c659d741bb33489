"""The Markdown that MLflow shows at the top of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vtw_search.results import Judgement, Row, StudyResult
from vtw_search.tracking.params import flatten
from vtw_search.transfer import Sharing

# MLflow cuts a note at 8000 characters; a row has about 100.
_MOST_ROWS = 40
_MOST_TASKS = 8


def search_note(search: str, studies: Sequence[StudyResult], cut: Sequence[str], sharing: Sharing | None = None) -> str:
    """Return the table of tasks and chosen policies, what they share, and what MLflow cannot show."""
    rows = [(result.task, *_numbers(result.chosen), _holdout(result)) for result in studies[:_MOST_ROWS]]
    table = _table(("task", *_COLUMNS, "holdout accuracy"), rows) if rows else "No task is complete yet."
    verdicts = [f"- **{_cell(result.task)}**: {result.verdict}" for result in studies[:_MOST_ROWS]]
    missing = [f"Cut to MLflow's limit: {', '.join(cut)}. The whole is in the search's folder."] if cut else []
    return "\n\n".join([table, "\n".join(verdicts), *_sharing(sharing), _HOW_TO_SORT.format(search), *missing])


def _sharing(sharing: Sharing | None) -> list[str]:
    """Return the shared policy's verdict and the transfer table; nothing for one task."""
    if sharing is None:
        return []
    tasks = sharing.tasks[:_MOST_TASKS]
    lines = [(name, *(_transferred(rows[task]) for task in tasks)) for name, rows in sharing.lines()][-_MOST_ROWS:]
    return [f"**{_cell(sharing.verdict)}**", _table(("policy of", *(f"on {task}" for task in tasks)), lines)]


def _transferred(row: Row) -> str:
    measured = row.measurement
    broken = "" if row.feasible else "**breaks a limit:** "
    kl = _format(measured.kl_answer_nats, ".3g")
    return f"{broken}drop {_format(measured.accuracy_drop, '.3f')}, KL {kl}, macs {_format(measured.macs_ratio, '.0%')}"


_HOW_TO_SORT = (
    "To sort candidates by accuracy, KL, macs or time: on the experiment's page choose **Views > Candidates**, add "
    "`and tags.search = '{}'` to its filter and click a column's name."
)


def study_note(result: StudyResult, shown: int) -> str:
    """Return the verdict, the limits, and the front as a table."""
    limits = ", ".join(f"`{name}` {value}" for name, value in flatten(result.limits)) or "none"
    rows = [row for row in result.rows if row.chosen or row.on_front or row.measurement.policy.is_keep_all]
    table = _table(_COLUMNS, [_numbers(row) for row in rows[:_MOST_ROWS]])
    beside = [*_tests(result), *_baselines(result)]
    parts = [f"**{result.verdict}**", table, *beside, f"Limits: {limits}", _count(shown, len(result.rows))]
    return "\n\n".join(parts)


def _tests(result: StudyResult) -> list[str]:
    """Return the tests of the finalists as a table; nothing if none was asked for."""
    tested = result.confirmation
    if tested is None:
        return []
    rows = [(each.policy.label(), each.outcome) for each in tested.finalists]
    rows += [(label, "not tested, after a failure") for label in tested.untested]
    head = f"tested with {tested.level:.0%} confidence on {tested.images} images"
    return [_table(("finalist", head), rows)]


def _baselines(result: StudyResult) -> list[str]:
    """Return the baselines beside the chosen policy as a table; nothing without any."""
    if not result.baselines:
        return []
    rows = [
        (
            *_numbers(each.row)[:2], _format(each.row.measurement.macs_ratio, ".1%"),
            f"{each.advantage:+.3f} ({each.low:+.3f} to {each.high:+.3f})",
        )
        for each in result.baselines
    ]  # fmt: skip
    return [_table(("baseline", "accuracy", "macs", "advantage of the chosen policy, paired, 95 % interval"), rows)]


def _count(shown: int, total: int) -> str:
    if shown == total:
        return f"All {total} candidates have a run below this one."
    return f"{shown} of {total} candidates have a run below this one, the front first; all are in measurements.jsonl."


def candidate_note(task: str, row: Row, why: str) -> str:
    """Return why a candidate was chosen or not, and every limit with its value."""
    judged = [_judgement(judgement) for judgement in row.judgements]
    table = [_table(("limit", "value", "95 % interval", "bound", ""), judged)] if judged else []
    return "\n\n".join([f"{_cell(task)}, {row.measurement.policy.label()}: {why}", *table])


def _judgement(judgement: Judgement) -> tuple[str, ...]:
    interval = f"{judgement.low:.4g} to {judgement.high:.4g}"
    verdict = "holds" if judgement.holds else "**does not hold**"
    return judgement.limit, f"{judgement.value:.4g}", interval, f"{judgement.bound:g}", verdict


_COLUMNS = ("policy", "accuracy", "drop", "KL, nats", "macs", "time")


def _numbers(row: Row) -> tuple[str, ...]:
    measured, label = row.measurement, row.measurement.policy.label()
    return (
        f"**{label}**" if row.chosen else label,
        _format(measured.accuracy, ".4f"),
        _format(measured.accuracy_drop, ".4f"),
        _format(measured.kl_answer_nats, ".4g"),
        _format(measured.macs_ratio, ".1%"),
        _format(measured.latency_ratio, ".1%") + ("?" if measured.latency_ratio and measured.latency_problems else ""),
    )


def _holdout(result: StudyResult) -> str:
    return _format(result.holdout.get("accuracy"), ".4f")


def _format(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
