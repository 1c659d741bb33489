"""What the choice among feasible policies minimises: one column, several in turn, or a weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vtw_search.errors import ConfigError, unknown_name
from vtw_search.records import Measurement
from vtw_search.search.judge import COSTS

# Columns that a choice may be made by besides costs; those of which more is better count with a minus.
_LOSSES = ("accuracy_drop", "kl_answer_nats", "kl_first_nats")
_GAINS = ("accuracy", "agreement")
KNOWN = (*COSTS, *_LOSSES, *_GAINS)


@dataclass(frozen=True)
class Objective:
    """Weighted sums of columns, compared one after the other.

    Attributes:
        sums: each a tuple of (column, weight).
    """

    sums: tuple[tuple[tuple[str, float], ...], ...]

    def key(self, measurement: Measurement) -> tuple[float, ...]:
        """Return what is minimised, first sum first.

        Raises:
            ConfigError: a column was not measured.
        """
        return tuple(sum(weight * _number(name, measurement) for name, weight in each) for each in self.sums)

    @property
    def text(self) -> str:
        """The objective for people, such as `latency_ratio, then accuracy_drop`."""
        return ", then ".join(
            " + ".join(name if weight == 1 else f"{weight:g} x {name}" for name, weight in each) for each in self.sums
        )


DEFAULT = Objective(((("macs", 1.0),),))


def objective_of(prefer: Sequence[str], weights: Mapping[str, float]) -> Objective:
    """Read `limits.weights`, one sum that comes first if it is given, and `limits.prefer`, columns in turn.

    Raises:
        UnknownNameError: a column is none that a choice can be made by.
        ConfigError: there is no column.
    """
    for name in (*weights, *prefer):
        if name not in KNOWN:
            raise unknown_name("column to choose by", name, KNOWN)
    if not weights and not prefer:
        raise ConfigError("limits.prefer must name a column", value=prefer, remedy="the default is [macs]")
    weighted = (tuple((name, float(weight)) for name, weight in weights.items()),) if weights else ()
    return Objective((*weighted, *(((name, 1.0),) for name in prefer)))


def _number(name: str, measurement: Measurement) -> float:
    value = getattr(measurement, name)
    if value is None:
        raise ConfigError(f"{name} was not measured", value=measurement.policy.label(), remedy="use profile=time")
    return -float(value) if name in _GAINS else float(value)
