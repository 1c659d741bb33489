"""Three independent counts of one call held against each other: closed form, traced and dispatched.

The closed form knows widths alone; the tracer (`profilers.macs`) sees operators of a graph, the dispatcher
(`profilers.dispatched`) kernels of a run. A mistake in one of them is not in the others, so that their agreement can be
trusted, and a disagreement stops whoever asked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

TOLERANCE: Final = 1e-3
"""Largest relative difference between two counts of one module."""


@dataclass(frozen=True)
class AuditRow:
    """The counts of one module's call, in macs.

    Attributes:
        module: its name in the model.
        closed_form: from the shape record; None where no record describes the module.
        traced: fvcore's, with our handles; None where the call cannot be traced.
        dispatched: torch's.
        device: where the call was made; `meta` computes nothing.
        dead: whether its output is unused, so that only the run, not the trace of the whole model, shows it.
    """

    module: str
    closed_form: int | None
    traced: int | None
    dispatched: int
    device: str
    dead: bool = False

    @property
    def deviation(self) -> float:
        """Largest relative difference between two of the counts."""
        counts = [count for count in (self.closed_form, self.traced, self.dispatched) if count is not None]
        return (max(counts) - min(counts)) / max(*counts, 1)

    def as_dict(self) -> dict[str, Any]:
        """The row, ready for JSON."""
        return asdict(self)


class CountsDisagreeError(RuntimeError):
    """Two counts of one module differ by more than the tolerance."""

    def __init__(self, rows: Iterable[AuditRow]) -> None:
        self.rows = tuple(rows)
        found = "; ".join(
            f"{row.module}: closed form {row.closed_form}, traced {row.traced}, dispatched {row.dispatched} macs"
            for row in self.rows
        )
        super().__init__(
            f"Three counts of a module must agree to {TOLERANCE:.1%}; {found}. Correct the shape record of the family, "
            "or the handle of the operator that is counted wrongly."
        )


def require_agreement(rows: Iterable[AuditRow]) -> tuple[AuditRow, ...]:
    """Return the rows; CountsDisagreeError names every module whose counts differ."""
    found = tuple(rows)
    wrong = [row for row in found if row.deviation > TOLERANCE]
    if wrong:
        raise CountsDisagreeError(wrong)
    return found


def audit_rows(
    name: str,
    closed_form: Mapping[str, int | None],
    traced: Mapping[str, int] | None,
    dispatched: Mapping[str, int],
    device: str,
    dead: bool = False,
) -> list[AuditRow]:
    """Put the counts of a module and of those of its submodules that the closed form knows side by side.

    Args:
        name: of the module in the model.
        closed_form, traced, dispatched: macs by submodule; "" is the module itself.
        device: where the calls were made.
        dead: whether nothing reads the module's output.
    """
    return [
        AuditRow(
            module=f"{name}.{inner}".rstrip("."),
            closed_form=macs,
            traced=None if traced is None else traced.get(inner, 0),
            dispatched=dispatched.get(inner, 0),
            device=device,
            dead=dead,
        )
        for inner, macs in closed_form.items()
    ]
