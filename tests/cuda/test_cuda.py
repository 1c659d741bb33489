"""What only a CUDA device can show: the contracts there, both engines, reads that make the host wait, times, peaks."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes, ragged_rows
from profilers.memory import available_bytes, cache_bytes, peak_memory
from profilers.protocol import ProtocolSettings
from profilers.stopwatch import plain, stopwatch_of
from profilers.timing import compare
from vtw_search import Policy, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance.check import certify, check_model
from vtw_search.conformance.probes import Probe
from vtw_search.engine import BatchEvaluator, OnePassEvaluator
from vtw_search.evaluation.model import load_model
from vtw_search.evaluation.tasks import digits, easy_vqa
from vtw_search.recipes import RECIPES
from vtw_search.search.space import make_space

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICE = torch.device("cuda")
OWN_ADAPTERS = (
    "llava", "vipllava", "llava_next", "llava_onevision", "llava_next_video", "video_llava", "qwen2_vl", "qwen2_5_vl",
    "qwen3_vl", "internvl", "idefics3", "smolvlm", "gemma3", "paligemma", "mistral3",
)  # fmt: skip


def moved(inputs: Any) -> dict[str, Any]:
    return {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def on_device(probe: Probe) -> Probe:
    return replace(probe, inputs=moved(probe.inputs), alone=tuple((row, moved(inputs)) for row, inputs in probe.alone))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", OWN_ADAPTERS)
def test_every_contract_holds_on_the_device(name: str, attention: str) -> None:
    family = find(name)
    model = family.build(attention).to(DEVICE)
    report = check_model(model, [on_device(probe) for probe in family_probes(family)])
    assert report.passed, report.problem


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_shipped_model_is_certified_on_the_device(dtype: str) -> None:
    loaded = load_model("reference", device="cuda", dtype=dtype)
    assert certify(loaded.model, loaded.processor).failed is None


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_one_pass_equals_one_by_one(recipe: str) -> None:
    loaded = load_model("reference", device="cuda")
    samples = [*list(easy_vqa.load_pool("yesno", "holdout"))[:6], *list(digits.load_pool("holdout"))[:6]]
    policies = make_space(loaded.facts, {recipe: {}}, None).defaults()[:1]
    together = OnePassEvaluator(loaded, samples, "holdout", 0, 6).records_of([Policy.keep_all(), *policies])
    apart = BatchEvaluator(loaded, samples, "holdout", 0, 6)
    for policy, records in together.items():
        for found, expected in zip(records, apart.records(policy), strict=True):
            assert found.answer == expected.answer
            assert found.kl_answer_nats is not None
            assert expected.kl_answer_nats is not None
            assert math.isclose(found.kl_answer_nats, expected.kl_answer_nats, rel_tol=1e-3, abs_tol=1e-4)


def waits(model: Any, inputs: Any, policy: Policy, tokens: int) -> int:
    """Return how often generating `tokens` tokens makes the host wait for the device."""
    with apply_policy(model, policy), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in said)


@pytest.mark.parametrize("rows", ["one", "ragged"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "internvl"])
def test_a_policy_makes_the_host_wait_once_per_prompt(name: str, rows: str) -> None:
    family = find(name)
    model = family.build().to(DEVICE)
    inputs = moved(family.inputs([("small",)] if rows == "one" else ragged_rows(family)))
    waits(model, inputs, Policy.withdraw(3), 1)
    added = [
        waits(model, inputs, Policy.withdraw(3), tokens) - waits(model, inputs, Policy.keep_all(), tokens)
        for tokens in (1, 5)
    ]
    assert added == [1, 1], "the lengths of the selection, in the prefill alone"


def test_events_time_what_the_device_does() -> None:
    small, large = (torch.randn(size, size, device=DEVICE) for size in (1024, 8192))
    works = {"large": plain(lambda: large @ large)}
    found = compare(plain(lambda: small @ small), works, stopwatch_of("cuda"), ProtocolSettings(5, 0.0))["large"]
    assert found.ratio.low > 20  # 512 times the work
    assert not found.no_difference


def test_peaks_are_reset_and_reach_what_was_taken() -> None:
    before = torch.empty(1 << 28, dtype=torch.uint8, device=DEVICE)
    del before
    with peak_memory(DEVICE) as peak:
        block = torch.empty(1 << 26, dtype=torch.uint8, device=DEVICE)
        del block
    assert peak.allocated_bytes is not None
    assert peak.reserved_bytes is not None
    others = torch.cuda.memory_allocated(DEVICE)
    assert 1 << 26 <= peak.allocated_bytes <= others + (1 << 26) + (1 << 20)
    assert peak.allocated_bytes <= peak.reserved_bytes < others + (1 << 28), "what was cached before is given back"


def test_memory_that_the_allocator_holds_can_be_taken() -> None:
    torch.cuda.empty_cache()
    free = available_bytes(DEVICE)
    block = torch.empty(1 << 28, dtype=torch.uint8, device=DEVICE)
    assert available_bytes(DEVICE) <= free - (1 << 28) + (1 << 22)
    del block
    assert abs(available_bytes(DEVICE) - free) <= 1 << 22


@torch.inference_mode()
def test_the_cache_is_smaller_on_the_device_by_what_left() -> None:
    family = find("llava")
    model, inputs = family.build().to(DEVICE), moved(family.inputs([("small",)]))
    held = {}
    for policy in (Policy.keep_all(), Policy.withdraw(2)):
        with apply_policy(model, policy):
            held[policy] = cache_bytes(model(**inputs, use_cache=True).past_key_values)
    visual = find_adapter(model).visual_mask(model, inputs)
    assert visual is not None
    length, layers = inputs["input_ids"].shape[1], len(find_adapter(model).decoder_layers(model))
    left = 1 - (layers - 2) / layers * int(visual.sum()) / length
    assert held[Policy.withdraw(2)] == pytest.approx(left * held[Policy.keep_all()])
