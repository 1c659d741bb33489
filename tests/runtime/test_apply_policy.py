"""The runtime contracts, on tiny random models. The oracle masks instead of removing."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, StaticCache

from tests.conftest import IMAGE_TOKEN, LAYERS, make_inputs, make_tiny_llava
from vtw_search import Policy, PolicySet, Stage, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.errors import ModelError, PolicyError, PolicyFileError, RuntimeUseError, UnknownNameError
from vtw_search.policies import TaskPolicy

BATCHES = [(1,), (1, 1), (2, 1, 0), (0, 1), (3,), (0, 2, 1)]


@contextmanager
def masking(model: Any, layer: int, hidden: torch.Tensor) -> Any:
    """Run the full sequence, but mask the key columns `hidden`, (B, T), from `layer` on. Independent of the runtime."""

    def mask_columns(_: Any, args: Any, kwargs: Any) -> Any:
        length = args[0].shape[1]
        mask = kwargs["attention_mask"]
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        columns = hidden[:, None, None, :].expand(-1, 1, length, -1)
        # A masked token may still see itself, so that no row is empty; nobody else sees it.
        columns = columns & ~torch.eye(length, dtype=torch.bool)
        if mask.dtype == torch.bool:
            mask = mask.expand(len(hidden), -1, -1, -1) & ~columns
        else:
            mask = mask.expand(len(hidden), -1, -1, -1).masked_fill(columns, float("-inf"))
        return args, {**kwargs, "attention_mask": mask}

    layers = model.model.language_model.layers[layer:]
    handles = [module.register_forward_pre_hook(mask_columns, with_kwargs=True) for module in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_logits(model: Any, inputs: dict[str, Any], count: int = 3) -> torch.Tensor:
    """Logits of the last `count` positions, which are text in every row."""
    with torch.no_grad():
        return model(**inputs, use_cache=False, logits_to_keep=count).logits


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    spread = expected.std()
    assert spread > 0.1, "the oracle says nothing if the logits are almost constant"
    assert (found - expected).abs().max() / spread < 1e-5


@pytest.mark.parametrize("images", BATCHES)
@pytest.mark.parametrize("layer", range(1, LAYERS + 1))
def test_removing_equals_masking(tiny_llava: Any, layer: int, images: tuple[int, ...]) -> None:
    inputs = make_inputs(images)
    with masking(tiny_llava, layer, inputs["input_ids"] == IMAGE_TOKEN):
        expected = last_logits(tiny_llava, inputs)
    with apply_policy(tiny_llava, Policy.withdraw(layer=layer)):
        found = last_logits(tiny_llava, inputs)
    assert_close(found, expected)


@pytest.mark.parametrize("images", BATCHES)
@pytest.mark.parametrize("layer", [1, 3, 5])
def test_cached_generation_equals_uncached_masked_generation(
    tiny_llava: Any, layer: int, images: tuple[int, ...]
) -> None:
    inputs, steps = make_inputs(images), 8
    with apply_policy(tiny_llava, Policy.withdraw(layer=layer)):
        found = tiny_llava.generate(
            **inputs, max_new_tokens=steps, min_new_tokens=steps, do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    prompt = inputs["input_ids"].shape[1]
    full = dict(inputs)
    full["input_ids"] = found.sequences
    full["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, steps), value=1)
    hidden = (found.sequences == IMAGE_TOKEN) & (torch.arange(prompt + steps) < prompt)
    with masking(tiny_llava, layer, hidden), torch.no_grad():
        expected = tiny_llava(**full, use_cache=False).logits[:, prompt - 1 : -1]
    assert_close(torch.stack(found.logits, dim=1), expected)


@pytest.mark.parametrize("layer", [1, 3, LAYERS])
def test_cache_is_full_below_the_layer_and_short_above(tiny_llava: Any, layer: int) -> None:
    inputs, cache = make_inputs((2, 1, 0)), DynamicCache()
    with apply_policy(tiny_llava, Policy.withdraw(layer=layer)), torch.no_grad():
        tiny_llava(**inputs, past_key_values=cache, use_cache=True)
    full = inputs["input_ids"].shape[1]
    # The third row has no image and keeps its seven + two tokens, the most of all rows.
    visual_and_padding = (inputs["input_ids"] == IMAGE_TOKEN) | (inputs["attention_mask"] == 0)
    short = int((~visual_and_padding).sum(1).max())
    expected = [full if index < layer else short for index in range(LAYERS)]
    assert [cache.get_seq_length(index) for index in range(LAYERS)] == expected


@pytest.mark.parametrize("policy", [Policy.keep_all(), Policy.withdraw(layer=LAYERS)])
def test_keep_all_is_bit_identical(tiny_llava: Any, policy: Policy) -> None:
    inputs = make_inputs((2, 1, 0))
    expected = last_logits(tiny_llava, inputs)
    answer = tiny_llava.generate(**inputs, max_new_tokens=4, do_sample=False)
    with apply_policy(tiny_llava, policy):
        assert torch.equal(last_logits(tiny_llava, inputs), expected)
        assert torch.equal(tiny_llava.generate(**inputs, max_new_tokens=4, do_sample=False), answer)


def test_text_only_input_is_bit_identical(tiny_llava: Any) -> None:
    inputs = make_inputs((0, 0))
    expected = last_logits(tiny_llava, inputs)
    answer = tiny_llava.generate(**inputs, max_new_tokens=4, do_sample=False)
    with apply_policy(tiny_llava, Policy.withdraw(layer=2)):
        assert torch.equal(last_logits(tiny_llava, inputs), expected)
        assert torch.equal(tiny_llava.generate(**inputs, max_new_tokens=4, do_sample=False), answer)


@pytest.mark.parametrize("first,second", [((1,), (0,)), ((2, 1), (0, 0)), ((1,), (1,)), ((0,), (1,)), ((0, 1), (1, 0))])
def test_second_turn_on_the_same_cache(tiny_llava: Any, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    layer, cache = 3, DynamicCache()
    one, two = make_inputs(first, seed=1), make_inputs(second, seed=2)
    both_ids = torch.cat([one["input_ids"], two["input_ids"]], dim=1)
    both_mask = torch.cat([one["attention_mask"], two["attention_mask"]], dim=1)
    rows = [i for part in (one, two) for i in [part.get("pixel_values")] if i is not None]
    # Images are consumed row by row over both turns, so order them by row.
    counts = [
        [part.count(IMAGE_TOKEN) for part in ids] for ids in (one["input_ids"].tolist(), two["input_ids"].tolist())
    ]
    pixels, used = [], [0, 0]
    for row in range(len(first)):
        for turn, part in enumerate((one, two)):
            images = counts[turn][row] // 9
            if images:
                pixels.append(part["pixel_values"][used[turn] : used[turn] + images])
                used[turn] += images
    assert rows
    with apply_policy(tiny_llava, Policy.withdraw(layer=layer)), torch.no_grad():
        tiny_llava(**one, past_key_values=cache, use_cache=True)
        found = tiny_llava(
            **{**two, "attention_mask": both_mask}, past_key_values=cache, use_cache=True, logits_to_keep=3
        ).logits
    full = {"input_ids": both_ids, "attention_mask": both_mask, "pixel_values": torch.cat(pixels)}
    with masking(tiny_llava, layer, both_ids == IMAGE_TOKEN):
        expected = last_logits(tiny_llava, full)
    assert_close(found, expected)


def test_beam_search_equals_beam_search_with_masking(tiny_llava: Any) -> None:
    inputs = make_inputs((2, 1, 0))
    arguments = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False}
    with apply_policy(tiny_llava, Policy.withdraw(layer=2)):
        found = tiny_llava.generate(**inputs, **arguments)
        uncached = tiny_llava.generate(**inputs, **arguments, use_cache=False)
    assert torch.equal(found, uncached)


def test_a_row_does_not_depend_on_its_neighbours(tiny_llava: Any) -> None:
    inputs = make_inputs((2, 1, 0))
    with apply_policy(tiny_llava, Policy.withdraw(layer=3)):
        together = last_logits(tiny_llava, inputs)
        real = inputs["attention_mask"][1].bool()
        alone = last_logits(
            tiny_llava,
            {"input_ids": inputs["input_ids"][1:2, real], "pixel_values": inputs["pixel_values"][2:3]},
        )
    assert_close(together[1:2], alone)


def hook_count(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_are_gone_after_an_exception(tiny_llava: Any) -> None:
    inputs = make_inputs((1,))
    before, answer = hook_count(tiny_llava), last_logits(tiny_llava, inputs)
    wrong = {**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}
    with pytest.raises(ValueError, match="do not match"), apply_policy(tiny_llava, Policy.withdraw(layer=2)):
        tiny_llava.generate(**wrong, max_new_tokens=2)
    assert hook_count(tiny_llava) == before
    assert torch.equal(last_logits(tiny_llava, inputs), answer)
    with apply_policy(tiny_llava, Policy.withdraw(layer=2)):
        last_logits(tiny_llava, inputs)


def test_a_failed_forward_does_not_leak_into_the_next(tiny_llava: Any) -> None:
    inputs = make_inputs((1,))
    with apply_policy(tiny_llava, Policy.withdraw(layer=2)):
        expected = last_logits(tiny_llava, inputs)
        with pytest.raises(ValueError, match="do not match"):
            tiny_llava(**{**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)})
        with pytest.raises(RuntimeUseError, match="own forward"):
            tiny_llava.model.language_model(input_ids=torch.tensor([[1, 4, 5]]))
        assert torch.equal(last_logits(tiny_llava, inputs), expected)


def test_two_policies_on_one_model_are_refused(tiny_llava: Any) -> None:
    with (
        apply_policy(tiny_llava, Policy.withdraw(layer=2)),
        pytest.raises(RuntimeUseError, match="one policy at a time"),
        apply_policy(tiny_llava, Policy.keep_all()),
    ):
        pass


def test_a_second_thread_is_refused(tiny_llava: Any) -> None:
    raised: list[Exception] = []

    def other() -> None:
        try:
            with apply_policy(tiny_llava, Policy.withdraw(layer=2)):
                pass
        except RuntimeUseError as error:
            raised.append(error)

    with apply_policy(tiny_llava, Policy.withdraw(layer=3)):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(raised) == 1


@pytest.mark.parametrize("layer", [LAYERS + 1, 100])
def test_a_layer_out_of_range_is_refused(tiny_llava: Any, layer: int) -> None:
    with pytest.raises(PolicyError, match=f"1..{LAYERS}"), apply_policy(tiny_llava, Policy.withdraw(layer=layer)):
        pass


@pytest.mark.parametrize("layer", [0, -1, 1.5, True, "3", None])
def test_a_layer_that_is_not_a_positive_integer_is_refused(layer: Any) -> None:
    with pytest.raises(PolicyError, match="at least 1"):
        Policy.withdraw(layer=layer)


def test_unknown_operators_and_impossible_orders_are_refused(tiny_llava: Any) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'withdraw'"):
        apply_policy(tiny_llava, Policy(stages=(Stage(layer=2, operator="withdrew"),))).__enter__()
    twice = Policy(stages=(Stage(layer=2, operator="withdraw"), Stage(layer=3, operator="withdraw")))
    with pytest.raises(PolicyError, match="no stage may follow"):
        apply_policy(tiny_llava, twice).__enter__()
    backwards = Policy(stages=(Stage(layer=3, operator="withdraw"), Stage(layer=2, operator="withdraw")))
    with pytest.raises(PolicyError):
        apply_policy(tiny_llava, backwards).__enter__()


def test_unsupported_models_are_refused_by_name(tiny_llava: Any) -> None:
    with pytest.raises(ModelError, match="llama"):
        apply_policy(tiny_llava.model.language_model, Policy.keep_all()).__enter__()
    with pytest.raises(ModelError, match="unwrapped"):
        apply_policy(tiny_llava.model, Policy.keep_all()).__enter__()
    with pytest.raises(ModelError, match="Linear"):
        apply_policy(torch.nn.Linear(2, 2), Policy.keep_all()).__enter__()


def test_a_policy_set_applies_the_tasks_policy_to_its_own_model_only(tiny_llava: Any) -> None:
    fingerprint = find_adapter(tiny_llava).facts(tiny_llava).fingerprint
    policies = PolicySet(model=fingerprint, tasks={"t": TaskPolicy(policy=Policy.withdraw(layer=2))})
    with apply_policy(tiny_llava, policies, task="t") as active:
        assert active.policy == Policy.withdraw(layer=2)
    with apply_policy(tiny_llava, policies) as active:
        assert active.policy.is_keep_all
    other = make_tiny_llava(layers=LAYERS + 1)
    with pytest.raises(PolicyFileError, match=f"{LAYERS} layers.*{LAYERS + 1} layers"):
        apply_policy(other, policies, task="t").__enter__()
    renamed = policies.model_copy(update={"model": fingerprint.model_copy(update={"id": "elsewhere"})})
    with apply_policy(tiny_llava, renamed, task="t"):
        pass


def test_the_path_of_a_policy_file_is_refused(tiny_llava: Any) -> None:
    path: Any = "policy.json"
    with (
        pytest.raises(PolicyError, match=r"a Policy or a PolicySet, got 'str'; .*load_policy"),
        apply_policy(tiny_llava, path),
    ):
        pass


def test_unsupported_uses_are_refused_by_name(tiny_llava: Any) -> None:
    inputs = make_inputs((1,))
    static = StaticCache(config=tiny_llava.config.text_config, max_cache_len=64)
    with apply_policy(tiny_llava, Policy.withdraw(layer=2)), torch.no_grad():
        with pytest.raises(RuntimeUseError, match="StaticCache"):
            tiny_llava(**inputs, past_key_values=static, use_cache=True)
        with pytest.raises(RuntimeUseError, match="keyword arguments"):
            tiny_llava(inputs["input_ids"])
        with pytest.raises(RuntimeUseError, match="mark_visual"):
            tiny_llava(inputs_embeds=torch.randn(1, 4, 32))


def test_another_attention_implementation_is_refused() -> None:
    model = make_tiny_llava("sdpa")
    model.config.text_config._attn_implementation = "flex_attention"
    with pytest.raises(RuntimeUseError, match="flex_attention"):
        apply_policy(model, Policy.withdraw(layer=2)).__enter__()


MODELS = {attention: make_tiny_llava(attention) for attention in ("eager", "sdpa")}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    images=st.lists(st.integers(0, 2), min_size=1, max_size=3).filter(any),
    layer=st.integers(1, LAYERS - 1),
    text=st.integers(3, 9),
    seed=st.integers(0, 1000),
    attention=st.sampled_from(sorted(MODELS)),
)
def test_removing_equals_masking_for_any_batch(
    images: list[int], layer: int, text: int, seed: int, attention: str
) -> None:
    inputs = make_inputs(tuple(images), text, seed)
    with masking(MODELS[attention], layer, inputs["input_ids"] == IMAGE_TOKEN):
        expected = last_logits(MODELS[attention], inputs)
    with apply_policy(MODELS[attention], Policy.withdraw(layer=layer)):
        assert_close(last_logits(MODELS[attention], inputs), expected)
