"""The comparison of rules draws samples and chooses as the search itself does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.rule_comparison.draws import (
    SPLITS,
    Pool,
    choices,
    default_choices,
    draw,
    first_within,
    policy_of,
    truth_of,
)  # fmt: skip
from tests.search.records import LAYERS, records, row_of
from vtw_search.evaluation.statistics import paired_difference_interval
from vtw_search.evaluation.tasks import Sample
from vtw_search.results import Row
from vtw_search.search.answer import choose
from vtw_search.search.judge import judge
from vtw_search.search.limits import Limits

COUNT = 700


def pool(kl: dict[int, list[float]], scores: dict[int, list[float]]) -> Pool:
    """A pool in which K has the given values; other layers have no KL and are always right."""
    count = len(next(iter({**kl, **scores}.values())))
    frame = pd.concat([
        records(layer, "pool", kl.get(layer, [0.0] * count), scores.get(layer, [1.0] * count))
        for layer in range(LAYERS, 0, -1)
    ])  # fmt: skip
    samples = {
        f"pool-{n}": Sample(f"pool-{n}", (), "?", ("a",), "exact_match", f"pool-{n}", {}) for n in range(count)
    }  # fmt: skip
    return Pool("t", frame, samples, {layer: 100 * layer for layer in range(1, LAYERS + 1)})


@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(st.integers(1, LAYERS - 1), st.lists(st.sampled_from([0.0, 0.004]), min_size=20, max_size=20)),
    st.sampled_from([1, 5]),
)
def test_the_published_rule_is_that_of_the_search(kl: dict[int, list[float]], first: int) -> None:
    made = pool(kl or {1: [0.0] * 20}, {})
    limits = Limits(0.003, "first_token", "candidate_reference", 20, None, first)
    frame = pd.concat([made.frame.assign(split=split) for split in ("calibration", "selection")])
    kept = frame[frame["policy"] == policy_of(LAYERS, LAYERS).digest()]
    rows = []
    for layer in (LAYERS, *range(1, LAYERS)):
        own = frame[frame["policy"] == policy_of(layer, LAYERS).digest()]
        measurement = row_of(layer, 100 * layer).measurement
        rows.append(Row(measurement, judge(limits, measurement, own, kept)))
    expected = choose(rows).chosen.measurement.layer
    assert first_within(made.table("kl_first_reverse_nats"), 0.003, first) == expected


def test_no_layer_within_eta_keeps_all() -> None:
    values = np.ones((LAYERS, 20))
    values[-1] = 0.0
    assert first_within(values, 0.5, 1) == LAYERS


def test_draws_are_reproducible_and_short_ones_begin_long_ones() -> None:
    made = pool({1: [0.0] * 50}, {})
    assert draw(made, 3, 20).tolist() == draw(made, 3, 50)[:20].tolist()
    assert draw(made, 3, 20).tolist() != draw(made, 4, 20).tolist()
    assert len(set(draw(made, 3, 50).tolist())) == 50


def test_a_rare_divergence_is_missed_by_twenty_samples_as_often_as_chance_says() -> None:
    """One image in twenty diverges at every K below 9: 20 of 700 samples miss all of them with probability 0.357."""
    kl = [1.0 if n % 20 == 0 else 0.0 for n in range(COUNT)]
    made = pool(dict.fromkeys(range(1, 9), kl), {})
    found = choices(made, "kl_first_reverse_nats", 20, 0.003, 5, draws=400)
    assert set(found) == {5, 9}
    assert found.count(5) / 400 == pytest.approx(0.352, abs=0.07)


def test_the_default_search_on_drawn_samples_takes_what_it_can_certify() -> None:
    """K = 3 and 4 lose one answer in ten, all later layers none: 5 is the cheapest within the limits."""
    lost = [0.0 if n % 10 == 0 else 1.0 for n in range(COUNT)]
    made = pool({}, dict.fromkeys(range(1, 5), lost))
    limits = Limits(0.01, "answer", "reference_candidate", accuracy_drop=0.02, kl_tail=0.05, confidence=0.95)
    assert list(default_choices(made, [limits], draws=2)) == [[5], [5]]
    assert sum(SPLITS.values()) <= COUNT


def test_the_truth_is_the_paired_drop_of_every_layer() -> None:
    scores = [0.0] * 30 + [1.0] * 70
    truth = truth_of(pool({}, {4: scores}).frame, LAYERS)
    assert [layer for layer, drop in enumerate(truth.drops, start=1) if drop] == [4]
    assert truth.drops[3] == pytest.approx(0.3)
    assert truth.intervals[3] == paired_difference_interval([1.0] * 30 + [0.0] * 70, [str(n) for n in range(100)])
    assert truth.breaks(4, 0.02)
    assert truth.surely_breaks(4, 0.02)
    assert not truth.breaks(5, 0.02)
