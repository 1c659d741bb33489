"""What the tasks of a search have to do with each other: each one's policy on the others, and one policy for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vtw_search.policies import Policy
from vtw_search.records import KL_COLUMNS, Measurement
from vtw_search.results import Confirmation, Row


@dataclass(frozen=True)
class Price:
    """What sharing costs, in multiply-adds of one prefill, or of one prefill of every task.

    Attributes:
        own: under a policy per task.
        shared: under the policy that all tasks share.
        keep_all: under no policy.
    """

    own: int
    shared: int
    keep_all: int

    @property
    def lost(self) -> int:
        """Multiply-adds that sharing adds; negative where the task's own policy is the dearer one."""
        return self.shared - self.own

    @property
    def lost_ratio(self) -> float:
        """The same as a share of keep-all's."""
        return self.lost / self.keep_all

    def as_dict(self) -> dict[str, float]:
        """Return the price for files."""
        return {
            "own_macs": self.own, "shared_macs": self.shared, "keep_all_macs": self.keep_all, "lost_macs": self.lost,
            "lost_macs_ratio": self.lost_ratio,
        }  # fmt: skip


@dataclass(frozen=True)
class SharedPolicy:
    """One policy for all tasks.

    Attributes:
        policy: which.
        rows: task -> its row there, judged by that task's limits.
        prices: task -> what the task pays.
        holdout: task -> its numbers on that task's holdout.
        noise: task -> per variation of the run (dtype, attention, batch), the KL that it causes under the policy there;
            empty for keep-all, whose noise is the floor.
    """

    policy: Policy
    rows: Mapping[str, Row]
    prices: Mapping[str, Price]
    holdout: Mapping[str, Mapping[str, Any]]
    noise: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def total(self) -> Price:
        """The price of all tasks together."""
        each = self.prices.values()
        return Price(sum(p.own for p in each), sum(p.shared for p in each), sum(p.keep_all for p in each))


@dataclass(frozen=True)
class Sharing:
    """How the tasks' policies do on each other's tasks, and what one policy for all would cost.

    Attributes:
        transfer: task that a policy was chosen for -> task that it was measured on -> its row, judged by the limits of
            the latter, on the samples that a search sees.
        verdict: one sentence on the shared policy.
        shared: the policy; None if no policy, not even keep-all, meets every task's limits.
        confirmation: its tests, limits named `task: limit`; None if no confidence was asked for.
    """

    transfer: Mapping[str, Mapping[str, Row]]
    verdict: str
    shared: SharedPolicy | None
    confirmation: Confirmation | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in their order."""
        return tuple(self.transfer)

    def lines(self) -> Iterator[tuple[str, Mapping[str, Row]]]:
        """Yield the lines of the transfer table: what a policy is for, and its rows by task; the shared one last."""
        yield from self.transfer.items()
        if self.shared is not None:
            yield "all tasks", self.shared.rows

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "verdict": self.verdict,
            "shared": None if self.shared is None else _shared(self.shared),
            "confirmation": None if self.confirmation is None else self.confirmation.as_dict(),
            "transfer": {name: {task: _cell(row) for task, row in rows.items()} for name, rows in self.lines()},
        }


def _shared(shared: SharedPolicy) -> dict[str, Any]:
    return {
        "policy": shared.policy.model_dump(mode="json"),
        "label": shared.policy.label(),
        "price": {task: price.as_dict() for task, price in shared.prices.items()},
        "price_in_total": shared.total.as_dict(),
        "holdout": {task: dict(numbers) for task, numbers in shared.holdout.items()},
        "policy_noise": {task: dict(summary) for task, summary in shared.noise.items() if summary},
    }


_NUMBERS = ("accuracy", "accuracy_drop", "accuracy_drop_low", "accuracy_drop_high", *KL_COLUMNS.values(), "macs_ratio")


def _cell(row: Row) -> dict[str, Any]:
    measurement: Measurement = row.measurement
    numbers = {name: getattr(measurement, name) for name in _NUMBERS}
    return {"policy": measurement.policy.label(), "feasible": row.feasible, "status": row.status, **numbers}
