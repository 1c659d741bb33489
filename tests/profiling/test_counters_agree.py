"""Three counts agree on every supported architecture, and faults that are planted in any of them are named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from experiments.model_coverage import run as coverage
from experiments.model_coverage.families import find
from profilers.aten import COUNTED, NOT_COUNTED
from profilers.audit import TOLERANCE, CountsDisagreeError, require_agreement
from profilers.macs import count_macs
from profilers.regimes import Regime
from tests.conftest import usual_ones_fast
from vtw_search import Policy
from vtw_search.adapters import find_adapter
from vtw_search.errors import ModelError
from vtw_search.profiling.architectures import build_on_meta
from vtw_search.profiling.audit import audit_model
from vtw_search.profiling.counting import count_architecture, count_prompt
from vtw_search.profiling.vision import vision_parts
from vtw_search.profiling.works import RegimeWorks
from vtw_search.runtime.apply import run_under_policy
from vtw_search.runtime.capture import by_name, captured

SUPPORTED = [
    row["model_type"]
    for row in (json.loads(path.read_text()) for path in sorted(coverage.ROWS.glob("*.json")))
    if row["status"] == "supported"
]
VIDEOS = [name for name in SUPPORTED if "video" in find(name).kinds]
TWO_SIZES = [name for name in SUPPORTED if {"small", "large"} <= {*find(name).kinds}]
# Families whose calls take images or videos, not both.
ONE_KIND = ("glm46v", "glm4v", "glm4v_moe", "glm_ocr", "glmga", "molmo2")
# Families whose images are cut into as many tiles as their size asks for, padded to the most tiles of a call.
TILED = ["granite4_vision", "llava_next", "llava_next_video", "llava_onevision"]
# Families whose tower makes one sequence of all pictures of a call.
PIXTRAL = ["lighton_ocr", "mistral3", "mistral4"]


# Their towers come from timm, in place of which the tiny models have another.
TIMM = ("fast_vlm", "gemma3n")
# Their decoders choose by values what they compute.
BY_VALUES = ("gemma4", "step3p7")


def sample(name: str) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    family = find(name)
    model = family.build()
    return find_adapter(model), model, family.inputs([("large" if "large" in family.kinds else "small",)])


@pytest.mark.parametrize("name", usual_ones_fast(SUPPORTED))
def test_the_counts_of_every_module_agree(name: str) -> None:
    adapter, model, inputs = sample(name)
    rows = require_agreement(audit_model(adapter, model, inputs).rows)
    layers = {f"layers.{number}" for number in range(len(adapter.decoder_layers(model)))}
    counted = {row.module for row in rows if row.closed_form is not None}
    assert all(any(module.endswith(layer) for module in counted) for layer in layers)
    assert all(row.closed_form for row in rows if row.closed_form is not None)


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO_SIZES)
def test_two_images_of_different_size_are_counted_as_they_run(name: str) -> None:
    adapter, model, _ = sample(name)
    rows = require_agreement(audit_model(adapter, model, find(name).inputs([("small", "large")])).rows)
    assert any(row.closed_form for row in rows), "three counts are compared, not two"


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_and_an_image_are_counted_as_they_run(name: str) -> None:
    adapter, model, _ = sample(name)
    for kinds in (["video"], ["small", "video"])[: 1 if name in ONE_KIND else 2]:
        inputs = find(name).inputs([tuple(kinds)])
        rows = require_agreement(audit_model(adapter, model, inputs).rows)
        assert any(row.closed_form for row in rows), "three counts are compared, not two"
        assert count_prompt(adapter, model, inputs).cost.vision > 0


@pytest.mark.parametrize("name", TILED)
def test_tiles_that_only_pad_are_not_counted(name: str) -> None:
    adapter, model, _ = sample(name)
    inputs = find(name).inputs([("large",), ("small",), ("small", "large")])
    with captured([adapter.tower(model)]) as calls, torch.no_grad():
        model(**inputs, use_cache=False)
    ((call,),) = calls
    pictures = by_name(adapter.tower(model), call)["pixel_values"]
    assert len(adapter.image_grids(model, inputs)) == len(pictures) < len(inputs["pixel_values"].flatten(0, 1))


@pytest.mark.parametrize("name", PIXTRAL)
def test_pictures_that_a_tower_joins_are_counted_together(name: str) -> None:
    adapter, model, _ = sample(name)
    inputs = find(name).inputs([("small", "large")])
    assert len({*adapter.image_grids(model, inputs)}) == 2
    rows = require_agreement(audit_model(adapter, model, inputs).rows)
    assert any("patch_conv" in row.module and row.closed_form for row in rows)
    assert count_prompt(adapter, model, inputs).cost.vision > 0
    bare = build_on_meta(model.config)
    one, two = (count_architecture(adapter, bare, 8, [adapter.default_grid(bare)] * images) for images in (1, 2))
    assert two.cost.vision > 2 * one.cost.vision


@pytest.mark.parametrize("name", usual_ones_fast(SUPPORTED))
def test_a_composed_withdrawal_equals_the_calls_that_the_layers_receive(name: str) -> None:
    adapter, model, inputs = sample(name)
    stack, facts = adapter.decoder_layers(model), adapter.facts(model)
    layer = (facts.first_layer + facts.last_layer) // 2
    with run_under_policy(model, adapter, Policy.withdraw(layer)), captured(stack) as calls, torch.no_grad():
        model(**inputs, use_cache=False)
    tokens = [(args[0] if args else kwargs["hidden_states"]).shape[-2] for ((args, kwargs),) in calls]
    assert tokens[-1] < tokens[0]
    composed = count_prompt(adapter, model, inputs).cost.prefill_macs(tokens)
    for module, ((args, kwargs),), macs in zip(stack, calls, composed.decoder_layers, strict=True):
        assert count_macs(module, *args, **kwargs).total == pytest.approx(macs, rel=TOLERANCE)


@pytest.mark.parametrize("name", usual_ones_fast(name for name in SUPPORTED if name not in (*TIMM, *BY_VALUES)))
def test_without_a_prompt_the_vision_parts_are_counted_and_run_or_named(name: str) -> None:
    adapter, model, _ = sample(name)
    bare, parts = build_on_meta(model.config), vision_parts(adapter, model)
    prompt = count_architecture(adapter, bare, 8, [adapter.default_grid(bare)] if parts else [])
    assert (prompt.cost.vision > 0) == (parts is not None)
    assert any(name.startswith("vision part: ") for name in prompt.not_counted) == (parts is None)
    if parts is not None:
        rows, columns = adapter.default_grid(model)
        tokens = rows * columns // parts[1].merge
        work = RegimeWorks(adapter, model, Policy.keep_all(), Regime(1, tokens, 8, 1)).vision()
        assert work is not None
        with work() as call:
            call()


@pytest.mark.parametrize("name", BY_VALUES)
def test_what_values_decide_cannot_be_counted_without_weights(name: str) -> None:
    adapter, model, _ = sample(name)
    with pytest.raises(ModelError, match=r"without weights: .*search it"):
        count_architecture(adapter, build_on_meta(model.config), 8, [])


def test_a_picture_of_unknown_size_is_an_error_with_its_remedy() -> None:
    adapter, model, _ = sample("chameleon")
    with pytest.raises(ModelError, match=r"ChameleonConfig'; give profile\.visual_tokens"):
        adapter.default_grid(model)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl", "gemma3", "qwen3_vl_moe", "idefics2", "chameleon"])
def test_a_whole_prefill_is_the_sum_of_its_parts(name: str) -> None:
    from profilers.dispatched import dispatched_macs
    from vtw_search.profiling.audit import experts_that_torch_counts

    adapter, model, inputs = sample(name)
    length = inputs["input_ids"].shape[1]
    with experts_that_torch_counts(model):
        whole = dispatched_macs(model, **inputs, use_cache=False, logits_to_keep=1)[""]
    cost = count_prompt(adapter, model, inputs).cost
    assert cost.prefill_macs([length] * len(cost.shape.layers)).total == whole


def test_modules_whose_output_is_unused_are_counted_and_named() -> None:
    adapter, model, inputs = sample("llava")
    dead = [row for row in audit_model(adapter, model, inputs).rows if row.dead]
    assert [row.module for row in dead] == ["model.vision_tower.encoder.layers.1"]
    assert dead[0].module in count_macs(model, **inputs, use_cache=False).uncalled_modules
    assert count_prompt(adapter, model, inputs).cost.dead == dead[0].dispatched > 0


def test_a_wrong_record_is_named() -> None:
    adapter, model, inputs = sample("llava")
    right = adapter.shape(model)
    wrong = replace(right.layers[2], hidden=33, extras=(replace(right.layers[2].attention.projections[0]),))
    adapter.shape = lambda _: replace(right, layers=(*right.layers[:2], wrong, *right.layers[3:]))  # type: ignore[method-assign]
    rows = audit_model(adapter, model, inputs).rows
    with pytest.raises(CountsDisagreeError, match=r"layers\.2: closed form \d+, traced \d+.*Correct the shape record"):
        require_agreement(rows)
    with pytest.raises(ModelError, match=r"cannot be counted; Three counts.*layers\.2"):
        count_prompt(adapter, model, inputs)


@pytest.mark.parametrize("operator", ["aten::linear", "aten::scaled_dot_product_attention"])
def test_a_wrong_handle_is_found(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, model, inputs = sample("llava")
    monkeypatch.setitem(COUNTED, operator, lambda inputs, outputs: 0)
    with pytest.raises(ModelError, match=r"Three counts of a module must agree"):
        count_prompt(adapter, model, inputs)


def test_an_operator_without_handle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, model, inputs = sample("llava")
    monkeypatch.delitem(COUNTED, "aten::scaled_dot_product_attention")
    assert "aten::scaled_dot_product_attention" not in NOT_COUNTED
    with pytest.raises(ModelError, match=r"cannot be counted; .*aten::scaled_dot_product_attention \(1 x\)"):
        count_prompt(adapter, model, inputs)


def test_what_is_not_counted_is_in_the_result() -> None:
    adapter, model, inputs = sample("llava")
    assert {"aten::rsqrt", "aten::layer_norm", "aten::silu"} <= count_prompt(adapter, model, inputs).not_counted.keys()
