"""What is told of the holdout: an interval for every mean, and the gap to what the choice was made by."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.search.records import LAYERS, policy_of, records, row_of
from tests.search.test_quality_limits import limits
from vtw_search.evaluation.statistics import bootstrap_interval
from vtw_search.records import KL_COLUMNS
from vtw_search.results import Row
from vtw_search.search.aggregate import holdout_numbers, measurement_of, with_gap
from vtw_search.search.judge import judge, judge_holdout

KINDS = [{"kind": "ab"[n % 2]} for n in range(8)]


def frame(split: str, kl: list[float], lost: int) -> pd.DataFrame:
    """Keep-all, and a policy with another divergence in every column."""
    own = records(5, split, kl, [0.0] * lost + [1.0] * (len(kl) - lost), slices=KINDS)
    own = own.assign(**{name: own[name] * factor for factor, name in enumerate(KL_COLUMNS.values(), start=1)})
    return pd.concat([own, records(LAYERS, split, [0.0] * len(kl), [1.0] * len(kl), slices=KINDS)])


SEARCHED = pd.concat([frame("calibration", [0.01, 0.02] * 4, 0), frame("selection", [0.0] * 8, 1)])
HELD = frame("holdout", [0.05, 0.01, 0.02, 0.0] * 2, 2)


def of(rows: pd.DataFrame, layer: int) -> pd.DataFrame:
    return rows[rows["policy"] == policy_of(layer).digest()]


def test_every_divergence_has_an_interval_and_a_gap() -> None:
    numbers = holdout_numbers(HELD, policy_of(5))
    row = Row(measurement_of(SEARCHED, "t", policy_of(5), LAYERS), ())
    found = with_gap(numbers, row, {})
    for factor, name in enumerate(KL_COLUMNS.values(), start=1):
        values = (of(HELD, 5)[name]).tolist()
        assert (found[f"{name}_low"], found[f"{name}_high"]) == bootstrap_interval(values, of(HELD, 5)["cluster"])
        assert found[f"{name}_gap"] == pytest.approx(factor * (0.02 - 0.015))
    assert found["accuracy_drop_gap"] == pytest.approx(2 / 8 - 1 / 8)


@pytest.mark.parametrize("position,direction", KL_COLUMNS)
def test_every_limit_has_its_value_interval_and_gap_on_the_holdout(position: str, direction: str) -> None:
    factor = list(KL_COLUMNS).index((position, direction)) + 1
    asked = limits(
        kl_nats=1.0, kl_position=position, kl_direction=direction, kl_samples=1, kl_tail=0.5, accuracy_drop=0.5,
        kl_cap_nats=0.04 * factor, slices={"kind": {"accuracy_drop": 0.5}},
    )  # fmt: skip
    row = Row(row_of(5, 50).measurement, judge(asked, row_of(5, 50).measurement, of(SEARCHED, 5), of(SEARCHED, LAYERS)))
    judged = judge_holdout(asked, of(HELD, 5), of(HELD, LAYERS), [("kind", "a"), ("kind", "b"), ("kind", "gone")])
    found = with_gap(holdout_numbers(HELD, policy_of(5)), row, judged)["limits"]
    assert list(found) == ["kl_nats", "kl_tail", "accuracy_drop", "accuracy_drop[kind=a]", "accuracy_drop[kind=b]"]
    # The choice saw the first calibration sample alone.
    assert found["kl_nats"]["value"] == pytest.approx(0.02 * factor)
    assert found["kl_nats"]["gap"] == pytest.approx((0.02 - 0.01) * factor)
    assert (found["kl_tail"]["value"], found["kl_tail"]["gap"]) == (0.25, 0.25)
    assert found["accuracy_drop[kind=a]"]["gap"] == pytest.approx(1 / 4 - 1 / 4)
    assert found["accuracy_drop[kind=b]"]["gap"] == pytest.approx(1 / 4)
    assert all(own["low"] <= own["value"] <= own["high"] for own in found.values())
