"""How the runtime knows where a prompt ends: `generate` is noted while it runs, and is the model's own again after."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.conftest import IMAGE_TOKEN, make_inputs, make_tiny_llava
from tests.runtime.test_apply_policy import assert_close, last_logits, masking
from vtw_search import Policy, Stage, apply_policy
from vtw_search.policies import ScorerChoice

PRUNE = Policy(stages=(Stage(layer=3, operator="prune", keep=0.5, scorer=ScorerChoice(name="text_to_visual")),))


def repeating(seed: int = 0, text: int = 9) -> dict[str, Any]:
    """Return a prompt whose last three words came before, so that prompt lookup begins with a draft."""
    inputs = make_inputs((1,), text, seed)
    inputs["input_ids"][:, -6:-3] = inputs["input_ids"][:, -3:]
    return inputs


def answer(model: Any, inputs: Any, **arguments: Any) -> torch.Tensor:
    given = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [IMAGE_TOKEN], **arguments}
    tokens: torch.Tensor = model.generate(**inputs, **given)
    return tokens


@pytest.mark.parametrize("patched", [False, True])
def test_the_models_generate_is_as_before_also_after_an_exception(patched: bool) -> None:
    model = make_tiny_llava()
    if patched:
        model.generate = model.generate
    before = dict(vars(model))
    with pytest.raises(KeyError), apply_policy(model, PRUNE):
        raise KeyError(answer(model, repeating()))
    assert vars(model) == before


def test_an_interrupted_generation_is_over() -> None:
    model, inputs = make_tiny_llava(), repeating()

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with apply_policy(model, PRUNE), torch.no_grad():
        expected = model(**inputs).logits
        with pytest.raises(KeyboardInterrupt):
            answer(model, make_inputs((1,), 3), stopping_criteria=[stop])
        assert model(**inputs).logits.equal(expected)


def test_a_generation_inside_another_one_has_a_prompt_of_its_own() -> None:
    model, outer, inner = make_tiny_llava(), repeating(), make_inputs((1,), 14, seed=1)
    found: list[torch.Tensor] = []

    def ask(ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        found.append(answer(model, inner))
        return torch.zeros(len(ids), dtype=torch.bool)

    with apply_policy(model, PRUNE):
        expected = answer(model, outer), answer(model, inner)
        assert answer(model, outer, use_cache=False, stopping_criteria=[ask]).equal(expected[0])
    assert len(found) == 6
    assert all(tokens.equal(expected[1]) for tokens in found)


def test_threads_have_prompts_of_their_own() -> None:
    model, wrong = make_tiny_llava(), []
    prompts = [repeating(seed, 6 + 5 * seed) for seed in range(3)]

    def serve(inputs: Any, expected: torch.Tensor) -> None:
        wrong.extend(1 for _ in range(3) if not answer(model, inputs, prompt_lookup_num_tokens=3).equal(expected))

    with apply_policy(model, PRUNE):
        threads = [threading.Thread(target=serve, args=(inputs, answer(model, inputs))) for inputs in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["LoraConfig", "PrefixTuningConfig", "PromptTuningConfig"])
def test_learned_tokens_before_a_prompt_do_not_move_its_end(kind: str) -> None:
    """The first token of `generate` comes from the logits of a call of the model on the prompt alone."""
    peft = pytest.importorskip("peft", reason="peft is a development dependency")
    settings = {"target_modules": ["q_proj"], "r": 2} if kind == "LoraConfig" else {"num_virtual_tokens": 4}
    config = getattr(peft, kind)(task_type="CAUSAL_LM", **settings)
    model, inputs = peft.get_peft_model(make_tiny_llava(), config).eval(), repeating()
    first = {"output_logits": True, "return_dict_in_generate": True, "max_new_tokens": 1}
    with apply_policy(model, PRUNE), torch.no_grad():
        expected = model(**inputs).logits[:, -1]
        assert_close(answer(model, inputs, **first).logits[0], expected)
        if kind == "LoraConfig":  # with learned tokens PEFT itself cannot
            assert answer(model, inputs, prompt_lookup_num_tokens=3).equal(answer(model, inputs))


@pytest.mark.parametrize("layer", [1, 3])
def test_a_third_turn_sees_what_two_turns_with_images_left(layer: int) -> None:
    model, cache = make_tiny_llava(), DynamicCache()
    turns = [make_inputs((1, 0), seed=1), make_inputs((0, 1), seed=2), make_inputs((0, 0), seed=3)]
    ids = torch.cat([turn["input_ids"] for turn in turns], dim=1)
    mask, seen = torch.cat([turn["attention_mask"] for turn in turns], dim=1), 0
    with apply_policy(model, Policy.withdraw(layer)), torch.no_grad():
        for turn in turns:
            seen += turn["input_ids"].shape[1]
            call = {**turn, "attention_mask": mask[:, :seen], "past_key_values": cache, "use_cache": True}
            found = model(**call, logits_to_keep=3).logits
    pixels = torch.cat([turn["pixel_values"] for turn in turns[:2]])
    with masking(model, layer, ids == IMAGE_TOKEN):
        expected = last_logits(model, {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels})
    assert_close(found, expected)


def test_another_image_is_another_prompt_without_a_cache_too() -> None:
    model, first = make_tiny_llava(), make_inputs((1,))
    policy = Policy(stages=(Stage(layer=2, operator="prune", keep=2, scorer=ScorerChoice(name="text_to_visual")),))
    token = torch.full((1, 1), 7)
    longer = {
        "input_ids": torch.cat([first["input_ids"], token], dim=1),
        "attention_mask": torch.ones(1, first["input_ids"].shape[1] + 1, dtype=torch.long),
        "pixel_values": make_inputs((1,), seed=1)["pixel_values"],
    }
    with apply_policy(model, policy), torch.no_grad():
        expected = model(**longer).logits[:, -1]
        model(**first, use_cache=False)
        assert torch.allclose(model(**longer, use_cache=False).logits[:, -1], expected, atol=1e-5)
