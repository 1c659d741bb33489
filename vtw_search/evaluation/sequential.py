"""Racing: stop measuring a candidate once it surely breaks a limit, with a bound that holds at every look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vtw_search.evaluation.bounds import BOLDNESS, checked, past_variance

Decision = Literal["stop", "go on"]


@dataclass(frozen=True)
class Race:
    """Whether to go on with a candidate, asked after every batch: `race(values so far)`.

    A candidate whose true mean is within the limit is stopped with probability 1 - level at most, however often it is
    asked (Ville's inequality for a betting martingale; Waudby-Smith and Ramdas 2024, section 4). Values above `high`
    count as `high`: what breaks a limit on E[min(value, high)] breaks it on the mean, too.

    Attributes:
        limit: the largest mean that is allowed.
        low, high: range of the values: 0 and the cap for KL in nats, -1 and 1 for drops.
        level: confidence that a stop is right.
    """

    limit: float
    low: float
    high: float
    level: float

    def __call__(self, values: Sequence[float] | np.ndarray) -> Decision:
        """Decide on one value per cluster, in the order in which they were measured.

        Raises:
            EvidenceError: a value is missing, or below `low`.
        """
        return "stop" if self.stops(checked(values, self.low, np.inf)) else "go on"

    def stops(self, values: np.ndarray) -> np.ndarray:
        """Return, for (..., n) values, whether each row is stopped at any of its looks, (...).

        A row ends at its first NaN, so that rows of different lengths fit in one array.
        """
        capped = np.minimum(values, self.high)
        if self.limit <= self.low:
            # Nothing but `low` itself is allowed, so that one value decides; no finite bet would say it.
            decided = (capped > self.low) & (np.isnan(values).cumsum(axis=-1) == 0)
        else:
            decided = self.evidence(capped) >= 1
        return np.asarray(decided.any(axis=-1))

    def evidence(self, values: np.ndarray) -> np.ndarray:
        """Return the gambler's log capital after each value of (..., n), in units of what a stop needs."""
        unit = (values - self.low) / (self.high - self.low)
        bound = (self.limit - self.low) / (self.high - self.low)
        steps = np.arange(1, unit.shape[-1] + 1)
        need = -np.log1p(-self.level)
        # Equation 26 of the paper, for no fixed number of values.
        bets = np.sqrt(2 * need / (past_variance(unit) * steps * np.log1p(steps)))
        bets = np.minimum(bets, BOLDNESS / bound)
        capital: np.ndarray = np.log1p(bets * (unit - bound)).cumsum(axis=-1) / need
        return capital
