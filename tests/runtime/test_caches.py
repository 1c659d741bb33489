"""What a cache holds is known whatever is done to its rows, and a cache that a call left half-updated is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.conftest import IMAGE_TOKEN, LAYERS, make_inputs, make_tiny_llava
from tests.runtime.test_apply_policy import assert_close, masking
from vtw_search import Policy, apply_policy
from vtw_search.errors import RuntimeUseError

LAYER = 3
ROWS = (2, 1, 0)
WORDS = torch.tensor([[4, 9], [11, 5], [8, 8]])


def prefilled(model: Any, layer: int = LAYER) -> DynamicCache:
    """Return the cache of three rows with two, one and no image, which keep different numbers of tokens."""
    cache = DynamicCache()
    with apply_policy(model, Policy.withdraw(layer)), torch.no_grad():
        model(**make_inputs(ROWS), past_key_values=cache, use_cache=True)
    return cache


def next_logits(model: Any, cache: Any, rows: torch.Tensor, policy: Policy | None = None) -> torch.Tensor:
    """Return the logits of the words of `rows` on a cache that holds these rows in this order."""
    mask = torch.cat([make_inputs(ROWS)["attention_mask"], torch.ones(3, 2, dtype=torch.long)], dim=1)
    turn = {"input_ids": WORDS[rows], "attention_mask": mask[rows]}
    with apply_policy(model, policy or Policy.withdraw(LAYER)), torch.no_grad():
        logits: torch.Tensor = model(**turn, past_key_values=cache, use_cache=True).logits
    return logits


CHANGES: dict[str, tuple[Callable[[Any], None], list[int]]] = {
    "reorder_cache": (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 1])), [2, 0, 1]),
    "batch_select_indices": (lambda cache: cache.batch_select_indices(torch.tensor([2, 0])), [2, 0]),
    "batch_select_indices by a mask": (
        lambda cache: cache.batch_select_indices(torch.tensor([False, True, True])), [1, 2]
    ),
    "batch_repeat_interleave": (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_held_follows_the_rows_of_the_cache(change: str) -> None:
    model, (act, order) = make_tiny_llava(), CHANGES[change]
    expected = next_logits(model, prefilled(model), torch.arange(3))
    cache = prefilled(model)
    act(cache)
    rows = torch.tensor(order)
    assert_close(next_logits(model, cache, rows), expected[rows])


def test_rows_are_followed_in_a_copy_alone() -> None:
    model, rows = make_tiny_llava(), torch.tensor([2, 0, 1])
    cache = prefilled(model)
    twins = [copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))]
    expected = next_logits(model, copy.deepcopy(cache), torch.arange(3))
    for twin in twins:
        twin.reorder_cache(rows)
        assert_close(next_logits(model, twin, rows), expected[rows])
    assert_close(next_logits(model, cache, torch.arange(3)), expected)


def failing_once(model: Any, layer: int) -> Any:
    """Let one call of a decoder layer raise."""

    def fail(*_: Any) -> None:
        handle.remove()
        raise MemoryError("no more memory")

    handle = model.model.language_model.layers[layer].register_forward_pre_hook(fail)
    return handle


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_cache_that_a_failed_prefill_left_is_refused(layer: int) -> None:
    model, cache = make_tiny_llava(), DynamicCache()
    with apply_policy(model, Policy.withdraw(LAYER)), torch.no_grad():
        failing_once(model, layer)
        with pytest.raises(MemoryError):
            model(**make_inputs(ROWS), past_key_values=cache, use_cache=True)
    if layer == 0:
        return  # nothing was stored
    for policy in (Policy.withdraw(LAYER), Policy.keep_all())[: 2 if layer >= LAYER else 1]:
        with pytest.raises(RuntimeUseError, match="start with a new cache"):
            next_logits(model, cache, torch.arange(3), policy)


@pytest.mark.parametrize("layer", range(1, LAYERS))
def test_a_cache_that_a_failed_later_call_left_is_refused(layer: int) -> None:
    model = make_tiny_llava()
    cache = prefilled(model)
    failing_once(model, layer)
    with pytest.raises(MemoryError):
        next_logits(model, cache, torch.arange(3))
    for _ in range(2):
        with pytest.raises(RuntimeUseError, match="start with a new cache"):
            next_logits(model, cache, torch.arange(3))


def test_cropping_does_not_mend_a_half_updated_cache() -> None:
    """Layer 0 is as long as before again, but the layers that the call did not reach have lost tokens."""
    model = make_tiny_llava()
    cache = prefilled(model)
    failing_once(model, 2)
    with pytest.raises(MemoryError):
        next_logits(model, cache, torch.arange(3))
    cache.crop(-2)
    with pytest.raises(RuntimeUseError, match="start with a new cache"):
        next_logits(model, cache, torch.arange(3))


def test_a_call_that_failed_before_the_decoder_leaves_its_cache_usable() -> None:
    model = make_tiny_llava()
    expected = next_logits(model, prefilled(model), torch.arange(3))
    cache = prefilled(model)
    failing_once(model, 0)
    with pytest.raises(MemoryError):
        next_logits(model, cache, torch.arange(3))
    assert_close(next_logits(model, cache, torch.arange(3)), expected)


def test_the_permuted_rows_equal_masking() -> None:
    model, inputs, order = make_tiny_llava(), make_inputs(ROWS), torch.tensor([2, 0, 1])
    cache = prefilled(model)
    cache.reorder_cache(order)
    found = next_logits(model, cache, order)
    whole = {
        "input_ids": torch.cat([inputs["input_ids"], WORDS], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(WORDS)], dim=1),
        "pixel_values": inputs["pixel_values"],
    }
    with masking(model, LAYER, whole["input_ids"] == IMAGE_TOKEN), torch.no_grad():
        expected = model(**whole, use_cache=False).logits[:, -2:]
    assert_close(found, expected[order])
