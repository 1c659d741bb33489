"""What one call of the model asks for: done, or refused by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlavaForConditionalGeneration

from experiments.model_coverage.families import find
from tests.conftest import IMAGE_TOKEN, PATCHES, make_inputs, make_tiny_llava
from tests.runtime.test_modes import LAYER, answer
from vtw_search import Policy, apply_policy
from vtw_search.errors import RuntimeUseError
from vtw_search.policies import ScorerChoice, Stage


def test_a_mark_is_for_one_call() -> None:
    model, inputs = make_tiny_llava(), make_inputs((1,))
    with torch.no_grad(), apply_policy(model, Policy.withdraw(2)) as active:
        expected = model(**inputs).logits
        active.mark_visual(torch.ones_like(inputs["input_ids"], dtype=torch.bool))
        active.use(Policy.keep_all())
        model(**inputs)
        active.use(Policy.withdraw(2))
        assert model(**inputs).logits.equal(expected)


def test_static_caches_are_refused_by_name() -> None:
    model, inputs = make_tiny_llava(), make_inputs((1,))
    with apply_policy(model, Policy.withdraw(LAYER)), pytest.raises(RuntimeUseError, match="StaticCache"):
        answer(model, inputs, cache_implementation="static")


def test_labels_are_refused_where_tokens_leave() -> None:
    model, inputs = make_tiny_llava(), make_inputs((1,))
    with apply_policy(model, Policy.withdraw(LAYER)), pytest.raises(RuntimeUseError, match="no loss"):
        model(**inputs, labels=inputs["input_ids"])


def test_too_few_image_tokens_are_an_error_and_leave_nothing_behind() -> None:
    model, inputs = make_tiny_llava(), make_inputs((1,))
    inputs["input_ids"][0, 3] = 8
    with apply_policy(model, Policy.withdraw(LAYER)), pytest.raises(ValueError, match="do not match"):
        model(**inputs)
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("cached", [True, False])
def test_of_a_call_of_visual_tokens_alone_the_last_stays(cached: bool) -> None:
    """Outside of `generate` it is a prompt: its last token answers, and sees the others through the layers below K."""
    model, inputs, cache = make_tiny_llava(), make_inputs((1,)), DynamicCache() if cached else None
    image = {"input_ids": torch.full((1, PATCHES), IMAGE_TOKEN), "pixel_values": inputs["pixel_values"]}
    other = {**image, "pixel_values": inputs["pixel_values"].flip(0, -1)}
    with apply_policy(model, Policy.withdraw(LAYER)), torch.no_grad():
        found = model(**image, past_key_values=cache, use_cache=cached).logits
        assert found.shape[1] == 1
        assert not torch.allclose(found, model(**other).logits, atol=0.1)
    assert cache is None or [layer.keys.shape[-2] for layer in cache.layers] == [PATCHES] * LAYER + [1] * LAYER


def test_positions_of_logits_are_refused_where_tokens_leave() -> None:
    model, inputs, cache = make_tiny_llava(), make_inputs((1,)), DynamicCache()
    last = torch.tensor([inputs["input_ids"].shape[1] - 1])
    with apply_policy(model, Policy.withdraw(LAYER)), torch.no_grad():
        with pytest.raises(RuntimeUseError, match="logits_to_keep"):
            model(**inputs, logits_to_keep=last)
        found = model(**inputs, past_key_values=cache, use_cache=True).logits[:, -1:]
        assert torch.allclose(model(**inputs, logits_to_keep=1).logits, found, atol=1e-5)
        # Nothing leaves in this call, so that positions mean what they say.
        turn = {"input_ids": torch.tensor([[4, 5]]), "past_key_values": cache, "use_cache": True}
        assert model(**turn, logits_to_keep=torch.tensor([0])).logits.shape[1] == 1


@pytest.mark.parametrize(
    "mark", [torch.ones(1, 4), torch.ones(4, dtype=torch.bool), torch.ones(1, 4, dtype=torch.long), [[True]]]
)
def test_a_mark_must_be_bool_and_have_rows(mark: Any) -> None:
    with apply_policy(make_tiny_llava(), Policy.withdraw(LAYER)) as active:
        with pytest.raises(RuntimeUseError, match=r"\(B, T\) bool"):
            active.mark_visual(mark)
        active.mark_visual(None)


@pytest.mark.parametrize("shape", [(1, 4), (2, 17)])
def test_a_mark_must_have_the_shape_of_its_call(shape: tuple[int, int]) -> None:
    model, inputs = make_tiny_llava(), make_inputs((1,))
    assert inputs["input_ids"].shape == (1, 17)
    with apply_policy(model, Policy.withdraw(LAYER)) as active, torch.no_grad():
        active.mark_visual(torch.ones(shape, dtype=torch.bool))
        with pytest.raises(RuntimeUseError, match=r"\(1, 17\)"):
            model(**inputs)
        model(**inputs)  # the mark is gone


encoded_apart = pytest.mark.skipif(
    "mm_encoder_outputs" not in inspect.signature(LlavaForConditionalGeneration.forward).parameters,
    reason="this release of transformers takes no images that were encoded apart",
)


@encoded_apart
def test_encoded_images_may_be_a_tensor() -> None:
    family = find("idefics3")
    model, inputs = family.build(), family.inputs([("small",)])
    pixels = {key: inputs.pop(key) for key in ("pixel_values", "pixel_attention_mask") if key in inputs}
    with apply_policy(model, Policy.withdraw(LAYER)), torch.no_grad():
        expected = model(**inputs, **pixels).logits
        features = model.model.get_image_features(**pixels).pooler_output
        assert model(**inputs, mm_encoder_outputs=torch.cat(list(features))).logits.equal(expected)


def by_the_tower() -> Policy:
    scorer = ScorerChoice(name="cls_attention")
    return Policy(stages=(Stage(site="vision", layer=0, operator="select", keep=0.5, scorer=scorer),))


@encoded_apart
def test_what_the_tower_told_of_other_images_is_not_used() -> None:
    model, first, second = make_tiny_llava(), make_inputs((1,)), make_inputs((1,), seed=1)
    pixels = second["pixel_values"]
    text = {name: value for name, value in second.items() if name != "pixel_values"}
    with torch.no_grad():
        encoded_before = {"image": model.model.get_image_features(pixel_values=pixels)}
        with apply_policy(model, by_the_tower()):
            with pytest.raises(RuntimeUseError, match="this very prompt"):
                model(**text, mm_encoder_outputs=encoded_before)
            expected = model(**second).logits
            model(**first)
            with pytest.raises(RuntimeUseError, match="this very prompt"):
                model(**text, mm_encoder_outputs=encoded_before)
            encoded_here = {"image": model.model.get_image_features(pixel_values=pixels)}
            for _ in range(2):  # generation without a cache repeats the prompt
                assert model(**text, mm_encoder_outputs=encoded_here).logits.equal(expected)


def test_without_a_cache_every_step_keeps_what_the_tower_told() -> None:
    model, inputs = make_tiny_llava(), make_inputs((2, 1))
    with apply_policy(model, by_the_tower()):
        assert answer(model, inputs, use_cache=False).equal(answer(model, inputs))
