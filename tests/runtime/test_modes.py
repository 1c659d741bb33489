"""Every way to generate, on tiny random models: right, or refused by name."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes, ragged_rows
from experiments.model_coverage.run import NAMED
from experiments.model_coverage.tiny import Inputs, TinyFamily
from tests.conftest import make_inputs, make_tiny_llava
from vtw_search import Policy, PolicySet, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance import Probe, check_model
from vtw_search.conformance.bench import Bench
from vtw_search.errors import PolicyError, RuntimeUseError
from vtw_search.policies import TaskPolicy
from vtw_search.runtime.deviation import deviation

LAYER = 3


def answer(model: Any, inputs: Any, **arguments: Any) -> torch.Tensor:
    tokens: torch.Tensor = model.generate(**inputs, **{"max_new_tokens": 6, "do_sample": False, **arguments})
    return tokens


def with_second_turn(family: TinyFamily, inputs: Inputs) -> Inputs:
    """Return the inputs of the whole conversation: four words of the user follow."""
    generator, rows = torch.Generator().manual_seed(1), len(inputs["input_ids"])
    words = torch.randint(family.first_word, family.last_word, (rows, 4), generator=generator)
    longer = dict(inputs)
    for key, value in inputs.items():
        if value.shape[:2] == inputs["input_ids"].shape and not value.is_floating_point():
            added = words if key == "input_ids" else torch.full_like(words, int(key == "attention_mask"))
            longer[key] = torch.cat([value, added], dim=1)
    return longer


def second_turn(model: Any, inputs: Inputs, longer: Inputs) -> torch.Tensor:
    """Return the logits of four words that follow `inputs` on its cache."""
    cache, start = DynamicCache(config=model.config), inputs["input_ids"].shape[1]
    turn = {"input_ids": longer["input_ids"][:, start:], "attention_mask": longer["attention_mask"]}
    with torch.no_grad():
        model(**inputs, past_key_values=cache, use_cache=True)
        deltas = getattr(model.model, "rope_deltas", None)
        if deltas is not None:
            # Families with M-RoPE leave it to `generate` to number a later turn.
            real = inputs["attention_mask"].sum(dim=1, keepdim=True)
            turn["position_ids"] = (real + torch.arange(4) + deltas).expand(3, -1, -1)
        logits: torch.Tensor = model(**turn, past_key_values=cache, use_cache=True).logits
    return logits


@pytest.mark.parametrize("name", [*NAMED, "gemma4"])
def test_a_second_text_turn_on_the_same_cache(name: str) -> None:
    """The logits of a second, text-only prompt equal those of a masked, uncached run of the whole conversation."""
    family = find(name)
    model, inputs = family.build(), family.inputs(ragged_rows(family))
    longer = with_second_turn(family, inputs)
    bench = Bench(model, find_adapter(model), [Probe("conversation", longer)], 1e-5)
    own = deviation(second_turn(model, inputs, longer), bench.logits(longer)[:, -4:])
    if own > 1e-4:
        pytest.skip(f"without any policy, a second turn and one long prompt differ by {own:.1e} in this family")
    layer = max(LAYER, bench.facts.first_layer)
    with bench.under(Policy.withdraw(layer)):
        found = second_turn(model, inputs, longer)
    with bench.masked(bench.probes[0], layer):
        expected = bench.logits(longer)[:, -4:]
    assert deviation(found, expected) < 1e-5


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_sampling_is_the_same_with_and_without_a_cache(name: str) -> None:
    family = find(name)
    model, inputs = family.build(), family.inputs(ragged_rows(family))
    drawn = []
    with apply_policy(model, Policy.withdraw(LAYER)):
        for cached in (True, False):
            torch.manual_seed(5)
            arguments = {"do_sample": True, "temperature": 0.7, "suppress_tokens": [3, 4]}
            drawn.append(answer(model, inputs, use_cache=cached, **arguments))
    assert drawn[0].equal(drawn[1])


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl"])
def test_beam_search_is_the_same_with_and_without_a_cache(name: str) -> None:
    family = find(name)
    model, inputs = family.build(), family.inputs([("small",), ("small",)])
    with apply_policy(model, Policy.withdraw(LAYER)):
        found, uncached = (
            answer(model, inputs, num_beams=3, suppress_tokens=[3, 4], use_cache=cached) for cached in (True, False)
        )
    assert found.equal(uncached)


def test_assisted_decoding_equals_greedy_decoding() -> None:
    """Prompt look-up proposes tokens and crops the cache when they are rejected."""
    model, inputs = make_tiny_llava(), make_inputs((1,))
    inputs["input_ids"][:, -6:] = torch.tensor([5, 6, 7, 5, 6, 7])
    with apply_policy(model, Policy.withdraw(LAYER)):
        greedy = answer(model, inputs, max_new_tokens=12)
        assisted = answer(model, inputs, max_new_tokens=12, prompt_lookup_num_tokens=3)
    assert assisted.equal(greedy)


def test_cropping_into_the_prompt_is_refused() -> None:
    model, inputs, cache = make_tiny_llava(), make_inputs((1,)), DynamicCache()
    with torch.no_grad(), apply_policy(model, Policy.withdraw(LAYER)):
        model(**inputs, past_key_values=cache, use_cache=True)
        cache.crop(-8)
        with pytest.raises(RuntimeUseError, match="8 positions were cropped, some of which had left"):
            model(input_ids=torch.tensor([[4]]), past_key_values=cache, use_cache=True)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_half_precision_passes_the_contracts(name: str, dtype: torch.dtype) -> None:
    family = find(name)
    probes = family_probes(family)
    for probe in probes:
        inputs: Any = probe.inputs
        for key, value in inputs.items():
            inputs[key] = value.to(dtype) if value.is_floating_point() else value
    report = check_model(family.build(dtype=dtype), probes, layers=[LAYER])
    assert report.passed, report.problem


def test_embeddings_with_features_are_as_good_as_ids() -> None:
    model, inputs = make_tiny_llava(), make_inputs((2, 1))
    embeds = {**inputs, "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    del embeds["input_ids"]
    with apply_policy(model, Policy.withdraw(LAYER)), torch.no_grad():
        assert model(**embeds).logits.equal(model(**inputs).logits)


def test_merged_embeddings_need_to_be_told() -> None:
    model, inputs = make_tiny_llava(), make_inputs((1,))
    visual = inputs["input_ids"] == 3
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    features = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    embeds = embeds.masked_scatter(visual[..., None], torch.cat(list(features)))
    with apply_policy(model, Policy.withdraw(LAYER)) as active, torch.no_grad():
        with pytest.raises(RuntimeUseError, match="mark_visual"):
            model(inputs_embeds=embeds)
        active.mark_visual(visual)
        found = model(inputs_embeds=embeds).logits
        assert torch.allclose(found, model(**inputs).logits, atol=1e-5)


def policies_of(model: Any) -> PolicySet:
    fingerprint = find_adapter(model).facts(model).fingerprint
    tasks = {f"t{layer}": TaskPolicy(policy=Policy.withdraw(layer)) for layer in (1, 2, 4)}
    return PolicySet(model=fingerprint, tasks=tasks)


def test_a_task_is_chosen_per_call() -> None:
    model, inputs = make_tiny_llava(), make_inputs((1,))
    policies = policies_of(model)
    expected = {}
    for task in policies.tasks:
        with apply_policy(model, policies, task=task), torch.no_grad():
            expected[task] = model(**inputs).logits
    with apply_policy(model, policies) as active, torch.no_grad():
        assert active.policy.is_keep_all
        for task in (*policies.tasks, *reversed(policies.tasks)):
            active.use(task)
            assert model(**inputs).logits.equal(expected[task])
    with apply_policy(model, Policy.withdraw(2)) as active, pytest.raises(PolicyError, match="policy file"):
        active.use("t1")


def test_threads_with_different_tasks_do_not_disturb_each_other() -> None:
    model, inputs = make_tiny_llava(), make_inputs((2, 1, 0))
    policies = policies_of(model)
    expected = {}
    for task in policies.tasks:
        with apply_policy(model, policies, task=task):
            expected[task] = answer(model, inputs)
    wrong: list[str] = []

    def serve(active: Any, task: str) -> None:
        active.use(task)
        wrong.extend(task for _ in range(5) if not answer(model, inputs).equal(expected[task]))

    with apply_policy(model, policies) as active:
        threads = [threading.Thread(target=serve, args=(active, task)) for task in policies.tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert len({tuple(tokens.flatten().tolist()) for tokens in expected.values()}) > 1


def test_a_cache_stays_with_its_policy() -> None:
    model, inputs, cache = make_tiny_llava(), make_inputs((1,)), DynamicCache()
    with apply_policy(model, policies_of(model), task="t2") as active, torch.no_grad():
        model(**inputs, past_key_values=cache, use_cache=True)
        active.use("t4")
        with pytest.raises(RuntimeUseError, match="filled with K = 2"):
            model(input_ids=torch.tensor([[4]]), past_key_values=cache, use_cache=True)


def test_a_cache_remembers_its_policy_in_a_later_block_and_in_a_copy() -> None:
    model, cache = make_tiny_llava(), DynamicCache()
    inputs, step = make_inputs((1,)), {"input_ids": torch.tensor([[4]])}
    with torch.no_grad():
        with apply_policy(model, Policy.withdraw(2)):
            model(**inputs, past_key_values=cache, use_cache=True)
            twin = copy.deepcopy(cache)
            expected = model(**step, past_key_values=cache, use_cache=True).logits
        with apply_policy(model, Policy.withdraw(2)) as active:
            again = copy.deepcopy(twin)
            assert model(**step, past_key_values=twin, use_cache=True).logits.equal(expected)
            for other in (Policy.withdraw(1), Policy.keep_all()):
                active.use(other)
                with pytest.raises(RuntimeUseError, match="filled with K = 2"):
                    model(**step, past_key_values=again, use_cache=True)
