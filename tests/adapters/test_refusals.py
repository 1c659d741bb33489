"""Structures that cannot run under a policy are refused by name, from their config."""

from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING

from experiments.model_coverage.families import find
from vtw_search.adapters import structural_problem


@pytest.mark.parametrize(
    "model_type,reason",
    [
        ("florence2", "encoder-decoder"),
        ("t5gemma2", "encoder-decoder"),
        ("pix2struct", "encoder-decoder"),
        ("mllama", "cross_attention_layers"),
        ("idefics", "cross_layer_interval"),
        ("qwen3_5", "LinearAttention"),
        ("lfm3_vl", "Linear"),
        ("diffusion_gemma", "canvas_length"),
    ],
)
def test_a_structure_is_refused_by_name(model_type: str, reason: str) -> None:
    assert reason in str(structural_problem(CONFIG_MAPPING[model_type]()))


def test_convolutions_between_attention_layers_are_refused() -> None:
    assert "Linear" in str(structural_problem(find("lfm2_vl").config()))


@pytest.mark.parametrize("model_type", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl"])
def test_a_stack_of_self_attention_is_not(model_type: str) -> None:
    assert structural_problem(CONFIG_MAPPING[model_type]()) is None
