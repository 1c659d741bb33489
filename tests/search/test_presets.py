"""Presets of limits choose what brute force chooses, on random tables of sample records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.records import LAYERS, policy_of, records
from vtw_search.config import load_config
from vtw_search.records import Measurement
from vtw_search.results import Row
from vtw_search.search.answer import choose
from vtw_search.search.judge import judge
from vtw_search.search.limits import Limits, limits_for_task
from vtw_search.search.objective import objective_of

COUNT = 50
Numbers = Mapping[str, float]

# Preset -> which policies are allowed, and what the best of them has least of; written down anew, not read from YAML.
PRESETS: dict[str, tuple[Callable[[Numbers], bool], Callable[[Numbers], tuple[float, ...]]]] = {
    "default": (lambda n: n["kl"] <= 0.01 and n["drop"] <= 0.02 and n["tail"] <= 0.05, lambda n: (n["macs"],)),
    "fastest_2_points": (lambda n: n["drop"] <= 0.02, lambda n: (n["latency_ratio"],)),
    "first_token_200ms": (
        lambda n: n["kl"] <= 0.01 and n["drop"] <= 0.02 and n["tail"] <= 0.05 and n["latency_ms"] <= 200,
        lambda n: (n["macs"],),
    ),
    "half_the_macs": (
        lambda n: n["kl"] <= 0.01 and n["drop"] <= 0.02 and n["tail"] <= 0.05 and n["macs_ratio"] <= 0.5,
        lambda n: (n["drop"], n["kl"]),
    ),
    "kv_30_percent": (
        lambda n: n["kl"] <= 0.01 and n["drop"] <= 0.02 and n["tail"] <= 0.05 and n["cache_ratio"] <= 0.3,
        lambda n: (n["drop"], n["kl"]),
    ),
    "weighted": (
        lambda n: n["kl"] <= 0.01 and n["drop"] <= 0.02 and n["tail"] <= 0.05,
        lambda n: (n["macs_ratio"] + 10 * n["drop"], n["macs"]),
    ),
    "vtw_paper": (lambda n: n["layer"] >= 5 and n["kl_20"] <= 0.003, lambda n: (n["macs"],)),
}  # fmt: skip


@cache
def limits_of(preset: str) -> Limits:
    config = load_config(f"limits={preset}", "task=easy_vqa_color")
    asked = config.limits.model_dump(exclude={"per_task"})
    return limits_for_task(asked, config.tasks["easy_vqa_color"].limits.model_dump(), {})


def test_every_preset_is_held_against_brute_force() -> None:
    from tests.test_config import OPTIONS

    assert {option.removeprefix("limits/") for option in OPTIONS if option.startswith("limits/")} == set(PRESETS)


policies = st.fixed_dictionaries({
    "kl": st.sampled_from([0.0, 0.002, 0.009, 0.011]), "kl_first_20": st.sampled_from([0.0, 0.0029, 0.004]),
    "high": st.integers(0, 4), "lost": st.integers(0, 3), "macs_ratio": st.sampled_from([0.2, 0.5, 0.51, 0.9]),
    "cache_ratio": st.sampled_from([0.1, 0.3, 0.31]), "latency_ms": st.sampled_from([90.0, 200.0, 201.0]),
})  # fmt: skip


def built(layer: int, made: Mapping[str, Any]) -> tuple[Measurement, pd.DataFrame, Numbers]:
    """Return a policy's measurement, its records, and what brute force knows of it."""
    values = [made["kl_first_20"]] * 20 + [made["kl"]] * (COUNT - 20)
    for place in range(made["high"]):
        values[-1 - place] = 0.11
    scores = [0.0] * made["lost"] + [1.0] * (COUNT - made["lost"])
    frame = pd.concat([records(layer, split, values, scores) for split in ("calibration", "selection")])
    macs = round(1000 * made["macs_ratio"]) + layer
    numbers = {
        "layer": layer, "kl": sum(values) / COUNT, "kl_20": made["kl_first_20"], "tail": made["high"] / COUNT,
        "drop": made["lost"] / COUNT, "macs": macs, "macs_ratio": made["macs_ratio"],
        "cache_ratio": made["cache_ratio"], "latency_ms": made["latency_ms"],
        "latency_ratio": made["latency_ms"] / 300,
    }  # fmt: skip
    measurement = Measurement(
        task="t", policy=policy_of(layer), layer=layer, accuracy=1 - numbers["drop"], accuracy_drop=numbers["drop"],
        kl_answer_nats=numbers["kl"], macs=macs, macs_ratio=made["macs_ratio"], cache_ratio=made["cache_ratio"],
        latency_ms=made["latency_ms"], latency_ratio=numbers["latency_ratio"],
    )  # fmt: skip
    return measurement, frame, numbers


KEEP_ALL = {
    "kl": 0.0, "kl_first_20": 0.0, "high": 0, "lost": 0, "macs_ratio": 1.0, "cache_ratio": 1.0, "latency_ms": 300.0,
}  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.integers(1, LAYERS - 1), policies, max_size=5))
def test_a_preset_chooses_what_brute_force_chooses(preset: str, table: dict[int, Mapping[str, Any]]) -> None:
    limits = limits_of(preset)
    allowed, least = PRESETS[preset]
    every = {layer: built(layer, made) for layer, made in {LAYERS: KEEP_ALL, **table}.items()}
    kept = every[LAYERS][1]
    rows = [Row(own, judge(limits, own, frame, kept)) for own, frame, _ in every.values()]
    chosen = choose(rows, objective_of(limits.prefer, limits.weights)).chosen.measurement
    found = {layer: numbers for layer, (_, _, numbers) in every.items() if layer != LAYERS and allowed(numbers)}
    assert chosen.policy.is_keep_all == (not found)
    if found:
        best = min(map(least, found.values()))
        assert least(found[chosen.layer]) == pytest.approx(best)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_about_time_ask_for_times(preset: str) -> None:
    assert limits_of(preset).need_time == (preset in ("fastest_2_points", "first_token_200ms"))
