"""What the policies measured so far say of those that are not: an order to measure in, never a result.

A policy is described by what it leaves at every layer and by an additive proxy: the sum of its stages' divergences,
which the sweep over single withdrawals gives. Trees fitted to the measured rows turn descriptions into an accuracy and
a worst limit, a line turns them into macs. So whatever was measured guides, whether it lies in the space or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr
from sklearn.ensemble import ExtraTreesRegressor

from vtw_search.operators import find_operator
from vtw_search.policies import Policy, Stage
from vtw_search.profiling.schedule import left_by
from vtw_search.results import Row
from vtw_search.search.improvement import Front, Values

_TREES = 100
# A share of the tokens where only the data tell how many stay, which is known only when it was measured.
_UNKNOWN_SHARE = 0.5


def kept_shares(policy: Policy, visual: int) -> Iterator[tuple[Stage, float, float]]:
    """Yield each stage with the shares of the `visual` tokens before and behind it."""
    share = 1.0
    for stage in policy.stages:
        after = _kept(stage, share, visual)
        yield stage, share, after
        share = after


def _kept(stage: Stage, share: float, visual: int) -> float:
    if isinstance(stage.keep, float):
        return share * stage.keep  # but for rounding, which depends on the shape of each image
    left = left_by(stage, round(share * visual))
    return share * _UNKNOWN_SHARE if left is None else left / visual


def sweep_of(rows: Sequence[Row]) -> dict[int, float]:
    """Return layer -> KL of the policies among `rows` that take all visual tokens away at one layer, in nats."""
    return {
        row.measurement.policy.stages[0].layer: row.measurement.kl_answer_nats
        for row in rows
        if [find_operator(stage.operator).may_be_followed for stage in row.measurement.policy.stages] == [False]
        and row.measurement.kl_answer_nats is not None
    }


def stage_divergences(policy: Policy, sweep: Mapping[int, float], layers: int, visual: int) -> dict[str, float]:
    """Return the additive proxy of a policy in nats, by what chose the tokens.

    A stage at layer K that takes a share of the tokens away counts that share of the divergence of taking all of them
    away there. Layers that the sweep lacks are interpolated; at layer L nothing is lost.

    Args:
        policy: whose stages are summed.
        sweep: as `sweep_of` returns it.
        layers: L.
        visual: how many visual tokens a prompt has.
    """
    known = sorted({**sweep, layers: 0.0}.items())
    places, values = [place for place, _ in known], [value for _, value in known]
    found: dict[str, float] = {}
    for stage, before, after in kept_shares(policy, visual):
        name = f"{stage.operator}:{stage.scorer.label() if stage.scorer else ''}"
        lost = (before - after) * float(np.interp(stage.layer, places, values))
        found[name] = found.get(name, 0.0) + lost
    return found


@dataclass(frozen=True)
class Proxy:
    """Predictions from measured rows.

    Attributes:
        layers: L.
        rows: measured without failure, keep-all among them.
    """

    layers: int
    rows: Sequence[Row]

    def best(self, candidates: Sequence[Policy], count: int) -> list[Policy]:
        """Return `count` candidates in the order in which they promise to add to the front of the feasible rows.

        The promise is the expected growth of the hypervolume times the chance that all limits hold. Each choice is
        taken to come true before the next one is made, so that they spread over the front.
        """
        described = np.array([self._description(policy) for policy in candidates])
        macs, (mean, deviation), possible = self._macs(described), self._accuracy(described), self._feasible(described)
        front, left, chosen = self.front, np.ones(len(candidates), dtype=bool), list[Policy]()
        while len(chosen) < min(count, len(candidates)):
            promise = np.where(left, possible * front.expected_gain(macs, mean, deviation), -1.0)
            pick = int(promise.argmax())
            left[pick] = False
            chosen.append(candidates[pick])
            front = front.and_(float(macs[pick]), float(mean[pick]))
        return chosen

    @property
    def front(self) -> Front:
        """The front of the feasible rows, above keep-all's macs and the accuracy that the limit leaves."""
        keep_all = self._keep_all
        allowed = [each.bound for each in keep_all.judgements if each.limit == "accuracy_drop"]
        floor = _accuracy(keep_all) - allowed[0] if allowed else 0.0
        points = ((_macs(row), _accuracy(row)) for row in self.rows if row.feasible)
        return Front.of(points, _macs(keep_all), floor)

    @cached_property
    def _keep_all(self) -> Row:
        return next(row for row in self.rows if row.measurement.policy.is_keep_all)

    @cached_property
    def _measured(self) -> Values:
        return np.array([self._description(row.measurement.policy) for row in self.rows])

    @cached_property
    def _sweep(self) -> dict[int, float]:
        return sweep_of(self.rows)

    @cached_property
    def _visual(self) -> int:
        visual = self._keep_all.measurement.visual_tokens
        assert visual is not None, "keep-all was profiled"
        return visual

    @cached_property
    def _names(self) -> list[str]:
        every = [self._divergences(row.measurement.policy) for row in self.rows]
        return sorted({name for each in every for name in each})

    def _divergences(self, policy: Policy) -> dict[str, float]:
        return stage_divergences(policy, self._sweep, self.layers, self._visual)

    def _description(self, policy: Policy) -> list[float]:
        """Return the share kept at every layer, the additive proxy, and its parts by what chose the tokens."""
        shares = np.ones(self.layers)
        for stage, _, after in kept_shares(policy, self._visual):
            shares[stage.layer :] = after
        parts = self._divergences(policy)
        return [*shares.tolist(), sum(parts.values()), *(parts.get(name, 0.0) for name in self._names)]

    def _macs(self, described: Values) -> Values:
        """Return macs by least squares on the tokens and their squares, summed over layers."""

        def terms(rows: Values) -> Values:
            shares = rows[:, : self.layers]
            return np.stack([np.ones(len(rows)), shares.sum(axis=1), (shares**2).sum(axis=1)], axis=1)

        wanted = np.array([_macs(row) for row in self.rows])
        weights, *_ = np.linalg.lstsq(terms(self._measured), wanted, rcond=None)
        found: Values = terms(described) @ weights
        return found

    def _accuracy(self, described: Values) -> tuple[Values, Values]:
        return self._predict(np.array([_accuracy(row) for row in self.rows]), described)

    def _feasible(self, described: Values) -> Values:
        """Return the chance that the worst limit holds."""
        mean, deviation = self._predict(np.array([_worst(row) for row in self.rows]), described)
        chance: Values = ndtr(-mean / deviation)
        return chance

    def _predict(self, wanted: Values, described: Values) -> tuple[Values, Values]:
        """Return the mean and the deviation over trees."""
        forest = ExtraTreesRegressor(_TREES, min_samples_leaf=1, max_features=0.5, bootstrap=True, random_state=0)
        forest.fit(self._measured, wanted)
        each = np.stack([tree.predict(described) for tree in forest.estimators_])
        return each.mean(axis=0), np.maximum(each.std(axis=0), 1e-6)


def _macs(row: Row) -> float:
    assert row.measurement.macs is not None, "a row without failure was profiled"
    return float(row.measurement.macs)


def _accuracy(row: Row) -> float:
    assert row.measurement.accuracy is not None, "a row without failure has an accuracy"
    return row.measurement.accuracy


def _worst(row: Row) -> float:
    """Return the worst excess over a limit in multiples of that limit, with large ones drawn together."""
    return float(np.arcsinh(max((each.excess / max(each.bound, 1e-9) for each in row.judgements), default=-1.0)))
