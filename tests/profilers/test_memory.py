"""Peaks of a block, and cache sizes by formula against transformers' caches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.model_coverage import run as coverage
from experiments.model_coverage.families import find
from profilers import memory
from profilers.memory import available_bytes, cache_bytes, is_out_of_memory, kv_cache_bytes, peak_memory
from profilers.shapes import ModelShape
from tests.profilers.shapes import LLAVA_7B, llama_layer
from vtw_search import Policy
from vtw_search.adapters import find_adapter
from vtw_search.runtime.apply import run_under_policy

SUPPORTED = [
    row["model_type"]
    for row in (json.loads(path.read_text()) for path in sorted(coverage.ROWS.glob("*.json")))
    if row["status"] == "supported"
]
MIB = 2**20


def test_the_peak_of_a_block_is_its_own() -> None:
    with peak_memory(torch.device("cpu")) as large:
        block = torch.ones(64 * MIB // 4)
    with peak_memory(torch.device("cpu")) as small:
        torch.ones(MIB // 4)
    del block
    if large.resident_bytes is None or small.resident_bytes is None:
        pytest.skip(large.note)
    with peak_memory(torch.device("cpu")) as later:
        torch.ones(MIB // 4)
    assert later.resident_bytes is not None
    assert large.resident_bytes - later.resident_bytes > 32 * MIB
    assert (large.allocated_bytes, large.reserved_bytes) == (None, None)


def test_a_system_that_does_not_reset_the_peak_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no folder" / "clear_refs")
    with peak_memory(torch.device("cpu")) as found:
        pass
    assert found.resident_bytes is None
    assert "does not let the peak" in found.note


def test_llava_7b_caches_half_a_mebibyte_per_token() -> None:
    held = kv_cache_bytes(LLAVA_7B, [1] * 32, generated=0, batch=1, value_bytes=2)
    assert held == 32 * 2 * 4096 * 2 == MIB // 2
    withdrawn = kv_cache_bytes(LLAVA_7B, [640] * 16 + [64] * 16, generated=10, batch=3, value_bytes=2)
    assert withdrawn == 3 * (16 * 650 + 16 * 74) * MIB // 2 // 32


def test_a_window_bounds_what_is_held() -> None:
    shape = ModelShape((llama_layer(64, 4, 2, 96, window=10),), 10)
    assert kv_cache_bytes(shape, [500], generated=3, batch=1, value_bytes=4) == 9 * 2 * (16 + 16) * 4


def filled_cache(name: str) -> tuple[ModelShape, list[int], Any]:
    """Prefill under a withdrawal and one decode step; the tokens that entered each layer come from its calls."""
    family = find(name)
    model, inputs = family.build(), family.inputs([("small",)])
    adapter = find_adapter(model)
    stack, facts = adapter.decoder_layers(model), adapter.facts(model)
    layer, tokens = max(facts.first_layer, facts.last_layer // 2), inputs["input_ids"].shape[1]
    with run_under_policy(model, adapter, Policy.withdraw(layer)), torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    visual = int(adapter.visual_mask(model, inputs).sum())
    schedule = [tokens if number < layer else tokens - visual for number in range(len(stack))]
    return adapter.shape(model), schedule, output.past_key_values


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_cache_holds_what_the_formula_says(name: str) -> None:
    shape, schedule, cache = filled_cache(name)
    assert kv_cache_bytes(shape, schedule, generated=1, batch=1, value_bytes=4) == cache_bytes(cache) > 0


def test_memory_that_is_left_is_told() -> None:
    assert MIB < available_bytes(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
