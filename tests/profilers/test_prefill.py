"""A prefill composed from token counts per layer."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profilers.closed_form import layer_macs
from profilers.prefill import PrefillCost, PrefillMacs
from tests.profilers.shapes import LLAVA_7B

COST = PrefillCost(LLAVA_7B, text_tokens=64, vision=7, projector=5, other=3)
counts = st.integers(0, 10**15)


@given(tokens=st.lists(st.integers(0, 700), min_size=32, max_size=32))
def test_layers_are_counted_one_by_one(tokens: list[int]) -> None:
    found = COST.prefill_macs(tokens)
    expected = tuple(layer_macs(layer, count) for layer, count in zip(LLAVA_7B.layers, tokens, strict=True))
    assert found == PrefillMacs(7, 5, expected, 4096 * 32064, other=3)


@given(vision=counts, projector=counts, layers=st.lists(counts, max_size=5), lm_head=counts, scorer=counts)
def test_the_parts_add_up(vision: int, projector: int, layers: list[int], lm_head: int, scorer: int) -> None:
    prefill = PrefillMacs(vision, projector, tuple(layers), lm_head, scorers=(scorer, scorer))
    assert prefill.total == vision + projector + sum(layers) + lm_head + 2 * scorer
    content = json.loads(json.dumps(prefill.as_dict()))
    assert content["flops"] == prefill.flops == 2 * content["total"]
    assert content["decoder_layers"] == layers
    assert content["scorer"] == prefill.scorer == 2 * scorer


def test_what_choosing_tokens_costs_is_added() -> None:
    scorers = [0] * 16 + [1000] + [0] * 15
    plain, scored = COST.prefill_macs([640] * 32), COST.prefill_macs([640] * 32, scorers)
    assert scored.total - plain.total == scored.scorer == 1000


def test_a_decode_step_reads_what_each_cache_holds() -> None:
    step = COST.decode_macs([640] * 16 + [64] * 16, generated=3)
    expected = [layer_macs(LLAVA_7B.layers[0], 1, cached=held + 3) for held in (640, 64)]
    assert step.decoder_layers == (expected[0],) * 16 + (expected[1],) * 16
    assert step.total == sum(step.decoder_layers) + 4096 * 32064
    assert step.flops == 2 * step.total


@pytest.mark.parametrize("tokens, scorers", [([640] * 31, ()), ([640] * 32, [0] * 31), ([-1] + [640] * 31, ())])
def test_a_schedule_that_does_not_fit_is_refused(tokens: list[int], scorers: list[int]) -> None:
    with pytest.raises(ValueError, match=r"got .*\. (Give one per layer|Count the tokens)"):
        COST.prefill_macs(tokens, scorers)


def test_a_further_candidate_takes_less_than_ten_milliseconds() -> None:
    schedules = [[640] * layer + [64] * (32 - layer) for layer in range(1, 33)]
    began = time.perf_counter()
    for schedule in schedules:
        COST.prefill_macs(schedule)
    assert (time.perf_counter() - began) / len(schedules) < 0.010
