"""Shipped architectures are counted without weights: three counts agree, and parts equal what is published."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vtw_search.adapters import find_adapter
from vtw_search.errors import ModelError, UnknownNameError
from vtw_search.profiling.architectures import architecture_names, build_on_meta, load_architecture
from vtw_search.profiling.counting import CountedPrompt, count_architecture

# Billions of parameters of the models that the configurations describe.
BILLIONS = {
    "llava_1_5_7b": 7.06, "llava_1_5_13b": 13.35, "qwen2_5_vl_7b": 8.29, "internvl3_8b": 7.94, "gemma3_4b": 4.3,
    "qwen3_vl_30b_a3b": 31.07,
}  # fmt: skip


@cache
def counted(name: str) -> tuple[Any, CountedPrompt]:
    model = build_on_meta(load_architecture(name))
    adapter = find_adapter(model)
    return model, count_architecture(adapter, model, 64, [adapter.default_grid(model)])


@pytest.mark.parametrize("name", architecture_names())
def test_three_counts_agree_on_every_shipped_architecture(name: str) -> None:
    model, prompt = counted(name)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 2) == BILLIONS[name]
    modules = {row.module for row in prompt.audit}
    assert "lm_head" in modules
    assert any("self_attn" in module for module in modules)
    assert all(
        row.traced is not None for row in prompt.audit if "embed" not in row.module and "patch" not in row.module
    )


def test_the_first_candidate_of_llava_7b_takes_less_than_five_seconds() -> None:
    began = time.perf_counter()
    _, prompt = counted.__wrapped__("llava_1_5_7b")
    prompt.cost.prefill_macs([640] * 32)
    assert time.perf_counter() - began < 5


def test_the_dead_clip_layer_of_llava_costs_what_was_measured() -> None:
    _, prompt = counted("llava_1_5_7b")
    assert [row.module for row in prompt.audit if row.dead] == ["encoder.layers.23"]
    assert round(prompt.cost.dead / 1e9, 1) == 7.9


def test_a_tower_that_reads_values_is_counted_at_two_small_sizes_on_the_cpu() -> None:
    _, prompt = counted("qwen2_5_vl_7b")
    layers = [row for row in prompt.audit if row.module.startswith("blocks.")]
    assert {row.device for row in layers} == {"cpu"}
    assert len({row.closed_form for row in layers if row.module == "blocks.0"}) == 2
    assert len({row.closed_form for row in layers if row.module == "blocks.7"}) == 2


def test_an_unknown_architecture_names_those_that_are_shipped() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown architecture 'llava_1_5_7'; did you mean 'llava_1_5_7b'"):
        load_architecture("llava_1_5_7")


@pytest.mark.parametrize(
    "content",
    [b"{", b'{"model_type": "nothing"}', b"[]", b"{}", b"\xff", b"[" * 20_000, b'{"model_type": [1]}',
     b'{"model_type": "llava", "text_config": 3}'],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"must be a transformers configuration.*give the config.json"):
        load_architecture(str(tmp_path))


def test_a_model_that_is_no_image_text_model_cannot_be_built(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    with pytest.raises(ModelError, match=r"buildable on meta, got 'llama'; .*load it with weights"):
        build_on_meta(load_architecture(str(tmp_path)))
