"""How often each method accepts a candidate whose true value lies exactly at the limit. Pure functions, seeded."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from experiments.limit_simulations.values import PATH
from vtw_search.evaluation.bounds import rejects_mean, share_upper_bound
from vtw_search.evaluation.paired import drop_p_value
from vtw_search.evaluation.sequential import Race
from vtw_search.policies import Policy
from vtw_search.search.confirmation import finalist_of
from vtw_search.search.limits import Limits
from vtw_search.search.racing import Racing

LEVEL, REPETITIONS, COUNTS = 0.95, 2000, (200, 600)
CAPS_NATS = (0.1, 2.0)
MEAN_NATS = 0.01
_RESAMPLES = 499

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Law:
    """A law of KL values: draws, and its exact capped mean and exceedance probability.

    Attributes:
        name: for the table.
        draw: (generator, n) -> (REPETITIONS, n) values in nats.
        capped_mean: c -> E[min(KL, c)]; infinity gives the mean.
        exceedance: c -> P(KL > c).
    """

    name: str
    draw: Draw
    capped_mean: Callable[[float], float]
    exceedance: Callable[[float], float]


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes:
        law, images, method: what was simulated.
        limit: the true value, which is also the limit.
        wrong: wrong decisions among the repetitions: acceptances, or stops for racing.
        right: right decisions a factor of two away: acceptances under twice the limit, stops under half of it.
    """

    law: str
    images: int
    method: str
    limit: float
    wrong: int
    right: int

    @property
    def is_naive(self) -> bool:
        """Whether this line only shows why not."""
        return self.method.startswith("naive")


def kl_laws() -> list[Law]:
    """Return the laws: the reference model's values, two lognormals and a spike, all with finite mean."""
    values = json.loads(PATH.read_text())["values"]
    resampled = [_resampled(f"digits_read {label}", np.array(rows["kl_nats"])) for label, rows in values.items()]
    return [*resampled, _lognormal(1.0), _lognormal(2.0), _spike(0.005, 2.0)]


def _resampled(name: str, values: np.ndarray) -> Law:
    return Law(
        name,
        lambda rng, count: rng.choice(values, (REPETITIONS, count)),
        lambda cap: float(np.minimum(values, cap).mean()),
        lambda cap: float((values > cap).mean()),
    )


def _lognormal(sigma: float) -> Law:
    middle = np.log(MEAN_NATS) - sigma**2 / 2
    law = stats.lognorm(s=sigma, scale=np.exp(middle))

    def capped_mean(cap: float) -> float:
        if np.isinf(cap):
            return MEAN_NATS
        below = MEAN_NATS * stats.norm.cdf((np.log(cap) - middle - sigma**2) / sigma)
        return float(below + cap * law.sf(cap))

    return Law(
        f"lognormal, sigma {sigma:g}",
        lambda rng, count: np.exp(middle + sigma * rng.standard_normal((REPETITIONS, count))),
        capped_mean,
        lambda cap: float(law.sf(cap)),
    )


def _spike(probability: float, height: float) -> Law:
    return Law(
        f"spike, {probability:.1%} at {height:g}",
        lambda rng, count: height * (rng.random((REPETITIONS, count)) < probability),
        lambda cap: probability * min(height, cap),
        lambda cap: probability * (height > cap),
    )


def kl_cells(law: Law, count: int) -> Iterator[Cell]:
    """Yield the line of every method for KL: ours, per cap, and the naive bootstrap of the mean."""
    values = law.draw(_generator(law.name, count), count)
    for cap in CAPS_NATS:
        limit = law.capped_mean(cap)
        capped = np.minimum(values, cap) / cap
        at, far = (int(rejects_mean(capped, min(f * limit / cap, 1 - 1e-9), LEVEL).sum()) for f in (1, 2))
        yield Cell(law.name, count, f"betting, E[min(KL, {cap:g})]", limit, at, far)
        tail = law.exceedance(cap)
        if tail > 0:
            hits = (values > cap).sum(axis=1)
            at, far = (int((_share_bounds(count)[hits] <= f * tail).sum()) for f in (1, 2))
            yield Cell(law.name, count, f"Clopper-Pearson, P(KL > {cap:g})", tail, at, far)
        at, far = (_stops(values, f * limit, cap) for f in (1, 0.5))
        yield Cell(law.name, count, f"racing, E[min(KL, {cap:g})]", limit, at, far)
    mean = law.capped_mean(np.inf)
    upper = bootstrap_bounds(values)
    yield Cell(law.name, count, "naive bootstrap, E[KL]", mean, *(int((upper <= f * mean).sum()) for f in (1, 2)))


def wired_cells(law: Law, count: int, loss: float = 0.04, gain: float = 0.02) -> Iterator[Cell]:
    """Yield the line of racing as a search runs it: every repetition is a policy, and all its limits are just reached.

    It is raced on `count` images for KL and as many for scores, against its mean KL, its share of KL above the cap and
    its drop at once; a stop at any look, by any of the three, is wrong.
    """
    name, cap = _wired_name(law, loss, gain), CAPS_NATS[0]
    rng, mean, tail = _generator(name, count), law.capped_mean(cap), law.exceedance(cap)
    divergences, drops = law.draw(rng, count), _drops(rng, count, loss, gain)
    nothing = np.zeros_like(drops)
    frame = pd.concat([_records("calibration", divergences, nothing), _records("selection", nothing, drops)])

    def stops(factor: float) -> int:
        limits = Limits(
            factor * mean, "answer", "reference_candidate", accuracy_drop=factor * (loss - gain), kl_cap_nats=cap,
            kl_tail=factor * tail if tail else None,
        )  # fmt: skip
        return len(Racing(limits, LEVEL).stopped(frame))

    yield Cell(name, count, "racing as a search runs it, all limits", mean, stops(1), stops(0.5))


def confirmed_cells(
    law: Law, count: int, loss: float = 0.04, gain: float = 0.02, repetitions: int = REPETITIONS
) -> Iterator[Cell]:
    """Yield the lines of confirmation as a search runs it: every repetition is a finalist, tested on its own records.

    One of its limits is just reached and the others are far away, which is the worst case: where several are reached, a
    wrong pass needs the bounds of all to fail at once.
    """
    name, cap = _wired_name(law, loss, gain), CAPS_NATS[0]
    rng = _generator(f"confirmed {name}", count)
    frame = _records("confirmation", law.draw(rng, count)[:repetitions], _drops(rng, count, loss, gain)[:repetitions])
    own = dict(list(frame.groupby("policy", sort=False)))
    kept = own.pop(Policy.keep_all().digest())
    reached = {"kl_nats": law.capped_mean(cap), "kl_tail": law.exceedance(cap), "accuracy_drop": loss - gain}
    limits = Limits(
        reached["kl_nats"], "answer", "reference_candidate", accuracy_drop=reached["accuracy_drop"], kl_cap_nats=cap,
        kl_tail=reached["kl_tail"] or None,
    )  # fmt: skip
    tested = [
        finalist_of(pd.concat([kept, own[policy.digest()]]), policy, limits, LEVEL, binary=True).tests
        for policy in _policies(repetitions)
    ]
    for tests in zip(*tested, strict=True):
        limit = tests[0].limit
        at, far = (sum(replace(test, bound=f * reached[limit]).holds for test in tests) for f in (1, 2))
        yield Cell(name, count, f"confirmation as a search runs it, {limit}", reached[limit], at, far)


def _wired_name(law: Law, loss: float, gain: float) -> str:
    return f"{law.name}; {loss:.0%} lost, {gain:.0%} won"


def _drops(rng: np.random.Generator, count: int, loss: float, gain: float) -> np.ndarray:
    return rng.choice([1.0, -1.0, 0.0], (REPETITIONS, count), p=[loss, gain, 1 - loss - gain])


def _policies(count: int) -> list[Policy]:
    """Return as many different policies; which, is of no matter to the records."""
    return [Policy.withdraw(layer) for layer in range(1, count + 1)]


def _records(split: str, divergences: np.ndarray, drops: np.ndarray) -> pd.DataFrame:
    """Return (policies, images) KL values and lost scores as records, with a keep-all that has neither."""
    policies, images = divergences.shape
    names = [policy.digest() for policy in (Policy.keep_all(), *_policies(policies))]
    reference = np.zeros(images)
    every = np.tile(np.array([f"image {number}" for number in range(images)], dtype=object), policies + 1)
    return pd.DataFrame({
        "policy": np.repeat(np.array(names, dtype=object), images), "split": split,
        "position": np.tile(np.arange(images), policies + 1), "sample": every, "cluster": every, "slices": "{}",
        "kl_answer_nats": np.vstack([reference, divergences]).ravel(),
        "score": -np.vstack([reference, drops]).ravel(), "failure": None,
    })  # fmt: skip


def cluster_cells(count: int, questions: int = 5) -> Iterator[Cell]:
    """Yield lines for images with several questions whose KL is the same: images as draws, and questions as draws."""
    law, cap = _lognormal(2.0), CAPS_NATS[0]
    name, limit = f"{law.name}, {questions} alike per image", law.capped_mean(cap)
    capped = np.minimum(law.draw(_generator(name, count), count), cap) / cap
    for method, values in (
        ("betting, E[min(KL, 0.1)]", capped),
        ("naive: betting, each question a draw", np.repeat(capped, questions, axis=1)),
    ):
        at, far = (int(rejects_mean(values, f * limit / cap, LEVEL).sum()) for f in (1, 2))
        yield Cell(name, count, method, limit, at, far)


def _stops(values: np.ndarray, limit: float, cap: float) -> int:
    race = Race(limit, 0.0, cap, LEVEL)
    return int((race.evidence(np.minimum(values, cap)).max(axis=1) >= 1).sum())


def _share_bounds(count: int) -> np.ndarray:
    return np.array([share_upper_bound(hits, count, LEVEL) for hits in range(count + 1)])


def bootstrap_bounds(values: np.ndarray) -> np.ndarray:
    """Return the one-sided percentile bootstrap bound of the mean per row; all rows share their resamples."""
    count = values.shape[1]
    weights = np.random.default_rng(count).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES) / count
    bounds: np.ndarray = np.quantile(values @ weights.T, LEVEL, axis=1)
    return bounds


def drop_laws() -> dict[str, tuple[float, float]]:
    """Return (P(loss), P(gain)) of the laws of a paired drop: the reference model's, and made ones."""
    values = json.loads(PATH.read_text())["values"]
    drops = {label: np.array(rows["drop"]) for label, rows in values.items()}
    real = {f"digits_read {label}": (float((d > 0).mean()), float((d < 0).mean())) for label, d in drops.items()}
    kept = {name: law for name, law in real.items() if law[0] > law[1]}
    return {**kept, "losses only, 1%": (0.01, 0.0), "losses only, 2%": (0.02, 0.0), "4% lost, 2% won": (0.04, 0.02)}


def drop_cells(name: str, law: tuple[float, float], count: int) -> Iterator[Cell]:
    """Yield the line of every method for a paired drop of 0/1 scores with one sample per image."""
    loss, gain = law
    limit, rng = loss - gain, _generator(name, count)
    counts = rng.multinomial(count, [loss, gain, 1 - loss - gain], size=REPETITIONS)
    at, far = (int((exact_p_values(counts, count, f * limit) <= 1 - LEVEL).sum()) for f in (1, 2))
    yield Cell(name, count, "exact paired test", limit, at, far)
    drops = _shuffled(counts, count, rng)
    at, far = (int(rejects_mean((drops + 1) / 2, (f * limit + 1) / 2, LEVEL).sum()) for f in (1, 2))
    yield Cell(name, count, "betting, drop in [-1, 1]", limit, at, far)
    stops = Race(limit, -1.0, 1.0, LEVEL).evidence(drops).max(axis=1) >= 1
    right = Race(limit / 2, -1.0, 1.0, LEVEL).evidence(drops).max(axis=1) >= 1
    yield Cell(name, count, "racing, drop", limit, int(stops.sum()), int(right.sum()))
    upper = bootstrap_bounds(drops)
    yield Cell(name, count, "naive bootstrap, drop", limit, *(int((upper <= f * limit).sum()) for f in (1, 2)))


def exact_p_values(counts: np.ndarray, count: int, drop: float) -> np.ndarray:
    """Return the exact test's p-value per row of (losses, gains, same); equal rows are computed once."""
    pairs, member = np.unique(counts[:, :2], axis=0, return_inverse=True)
    found = [drop_p_value(int(losses), int(gains), count, drop) for losses, gains in pairs]
    return np.array(found)[member.ravel()]


def _shuffled(counts: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    rows = np.zeros((len(counts), count))
    for row, (losses, gains, _) in zip(rows, counts, strict=True):
        row[:losses], row[losses : losses + gains] = 1.0, -1.0
    return rng.permuted(rows, axis=1)


def _generator(name: str, count: int) -> np.random.Generator:
    return np.random.default_rng([20261124, zlib.crc32(name.encode()), count])


def most_allowed(repetitions: int = REPETITIONS) -> int:
    """Return the 99 % quantile of the false acceptances of a method that has exactly the nominal level."""
    return int(stats.binom.ppf(0.99, repetitions, 1 - LEVEL))
