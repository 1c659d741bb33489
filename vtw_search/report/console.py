"""What a search prints when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vtw_search.report.confirmation import confirmation_table, noise_text
from vtw_search.report.tables import study_table
from vtw_search.report.transfer import price_lines, transfer_table
from vtw_search.results import Baseline, StudyResult
from vtw_search.transfer import Sharing


def show_studies(
    console: Console, studies: Sequence[StudyResult], policy_file: Path, sharing: Sharing | None = None
) -> None:
    """Print the table, the tests, the verdict and the holdout of every task, what they share, and where it all is."""
    for study in studies:
        console.print()
        console.print(study_table(study))
        if study.confirmation is not None and study.confirmation.finalists:
            console.print(confirmation_table(study.confirmation))
        console.print(f"[bold]{study.task}[/]: {study.verdict}", highlight=False)
        raced = "" if study.racing is None else study.racing.text
        for line in (raced, noise_text(study.noise), *map(baseline_text, study.baselines), holdout_text(study)):
            if line:
                console.print(line, highlight=False)
    if sharing is not None:
        _show_sharing(console, sharing)
    report = policy_file.parent / "report"
    console.print(f"\npolicy file: [bold]{policy_file}[/]; pictures and tables: {report}", highlight=False)


def _show_sharing(console: Console, sharing: Sharing) -> None:
    console.print()
    console.print(transfer_table(sharing))
    if sharing.confirmation is not None and sharing.confirmation.finalists:
        console.print(confirmation_table(sharing.confirmation))
    console.print(f"[bold]all tasks[/]: {sharing.verdict}", highlight=False)
    for line in price_lines(sharing):
        console.print(f"  {line}", highlight=False)


def baseline_text(baseline: Baseline) -> str:
    """Return a baseline's numbers and how much better the chosen policy is."""
    own = baseline.row.measurement
    gain = f"{baseline.advantage:+.3f} ({baseline.low:+.3f} to {baseline.high:+.3f})"
    return f"baseline {own.policy.label()}: accuracy {own.accuracy:.3f}, macs x {own.macs_ratio:.3f}; chosen {gain}"


def holdout_text(study: StudyResult) -> str:
    """Return the holdout's numbers with intervals, and how much worse they are than those that the choice saw."""
    numbers = study.holdout
    low, high = numbers["accuracy_drop_low"], numbers["accuracy_drop_high"]
    scores = f"accuracy {numbers['accuracy']:.3f} against {numbers['reference_accuracy']:.3f}"
    drop = f"drop {numbers['accuracy_drop']:.3f} ({low:.3f} to {high:.3f})"
    gap = f"{numbers['accuracy_drop_gap']:+.3f} on the drop that it was chosen by"
    looks = f"look {numbers['evaluations_of_this_holdout']} at this holdout"
    return f"holdout, {numbers['samples']} samples: {scores}, {drop}, {gap}; {looks}"
