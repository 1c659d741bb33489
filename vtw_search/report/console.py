"""What a search prints when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from vtw_search.report.confirmation import confirmation_table, noise_texts
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
        # Names of limits have brackets, which are no markup.
        console.print(f"[bold]{study.task}[/]: {escape(study.verdict)}", highlight=False)
        raced = "" if study.racing is None else study.racing.text
        for line in (raced, *noise_texts(study), *map(baseline_text, study.baselines), holdout_text(study)):
            if line:
                console.print(line, highlight=False, markup=False)
    if sharing is not None:
        _show_sharing(console, sharing)
    report = policy_file.parent / "report"
    console.print(
        f"\npolicy file: [bold]{escape(str(policy_file))}[/]; pictures and tables: {escape(str(report))}",
        highlight=False,
    )


def _show_sharing(console: Console, sharing: Sharing) -> None:
    console.print()
    console.print(transfer_table(sharing))
    if sharing.confirmation is not None and sharing.confirmation.finalists:
        console.print(confirmation_table(sharing.confirmation))
    console.print(f"[bold]all tasks[/]: {escape(sharing.verdict)}", highlight=False)
    for line in price_lines(sharing):
        console.print(f"  {line}", highlight=False, markup=False)


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
    # The drop over all samples is said already.
    others = [_limit_text(name, own) for name, own in numbers["limits"].items() if name != "accuracy_drop"]
    looks = f"look {numbers['evaluations_of_this_holdout']} at this holdout"
    return "; ".join([f"holdout, {numbers['samples']} samples: {scores}, {drop}, {gap}", *others, looks])


def _limit_text(name: str, own: Mapping[str, float]) -> str:
    return f"{name} {own['value']:.2g} ({own['low']:.2g} to {own['high']:.2g}), gap {own['gap']:+.2g}"
