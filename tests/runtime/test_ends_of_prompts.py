"""The last real token of a prompt always stays, also where it is visual; a row that ends with padding is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.conftest import IMAGE_TOKEN, make_inputs, make_tiny_llava
from tests.runtime.generation_modes import PLAIN, Case, outcomes, padded, repainted
from tests.runtime.masked_oracle import MaskedOracle
from tests.runtime.test_generation_modes import POLICIES, case_of, possible
from tests.runtime.test_stages import FAMILIES
from vtw_search import Policy, apply_policy
from vtw_search.engine.one_pass import Prompt, logits_of, run_one_pass
from vtw_search.errors import PolicyError, RuntimeUseError
from vtw_search.profiling.schedule import tokens_per_layer
from vtw_search.runtime import make_ready
from vtw_search.runtime.deviation import deviation
from vtw_search.tokens import TokenLayout


def last_logits(case: Case, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = case.model(**inputs).logits[:, -1]
    return logits


def check(name: str, policy: Policy) -> None:
    case = case_of(name)
    inputs = case.ends
    oracle, wanted = MaskedOracle(case.bench(inputs), inputs).logits(policy)
    with apply_policy(case.model, policy):
        found = last_logits(case, inputs)
        assert deviation(found, last_logits(case, repainted(inputs))) > 0.1, "another image changes the answer"
        modes = possible(name, at_end=True)
        assert outcomes(case, modes) == dict.fromkeys(modes, "equal")
    assert modes or name != "llava"
    assert bool(wanted[:, -1].all())
    assert deviation(found, oracle[:, -1]) < 1e-5


@pytest.mark.parametrize("label", POLICIES)
def test_the_last_token_stays_on_llava(label: str) -> None:
    check("llava", POLICIES[label])


@pytest.mark.slow
@pytest.mark.parametrize("label", POLICIES)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_token_stays(name: str, label: str) -> None:
    case = case_of(name)
    try:
        ready = make_ready(POLICIES[label], case.adapter.facts(case.model))
    except PolicyError as error:
        pytest.skip(str(error))
    if any(stage.needs_grids for stage in ready) and case.adapter.block_grid(case.model) is None:
        pytest.skip("`generate` does not pass the shapes of this family's images on")
    check(name, POLICIES[label])


@pytest.mark.parametrize("label", POLICIES)
def test_what_stays_is_counted_and_the_one_pass_keeps_it(label: str) -> None:
    """Entries of the cache and `tokens_per_layer` agree; so do the logits of the one pass and of `apply_policy`."""
    case, policy = case_of("llava"), POLICIES[label]
    inputs = case.ends
    visual = inputs["input_ids"] == IMAGE_TOKEN
    with apply_policy(case.model, policy) as active, torch.no_grad():
        output = case.model(**inputs, use_cache=True)
        left = [int(stage) for stage in active.visual_left]
    held = tuple(layer.keys.shape[-2] for layer in output.past_key_values.layers)
    grids = case.adapter.grids(case.model, inputs, int(visual.sum()))
    layout = TokenLayout(visual, torch.zeros_like(visual))
    assert held == tokens_per_layer(policy, layout, len(held), grids)
    assert held == tokens_per_layer(policy, layout, len(held), grids, left)
    real = torch.ones_like(visual)
    ready = make_ready(policy, case.adapter.facts(case.model))
    outcomes = run_one_pass(case.model, case.adapter, Prompt(inputs, visual, ~real, real, 1), [ready])
    ((_, logits),) = logits_of(case.model, case.adapter, outcomes, 5, 10**6)
    assert deviation(logits[:, -1], output.logits[:, -1]) < 1e-5


@pytest.mark.parametrize("label", POLICIES)
def test_rows_that_end_with_padding_are_refused(label: str) -> None:
    case = case_of("llava")
    rows = padded(case.one, 0, 2)
    twice = {name: torch.cat([value, value]) for name, value in rows.items()}
    twice["attention_mask"][0] = 1
    with apply_policy(case.model, POLICIES[label]), torch.no_grad():
        for call in (lambda: PLAIN(case, twice), lambda: case.model(**twice)):
            with pytest.raises(RuntimeUseError, match=r"ends in the last column, got 'rows \[1\].*padding_side='left'"):
                call()


def test_padding_behind_text_alone_is_as_without_a_policy() -> None:
    model, inputs = make_tiny_llava(), padded(make_inputs((0, 0)), 0, 3)
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with apply_policy(model, Policy.withdraw(2)):
        assert model.generate(**inputs, max_new_tokens=4, do_sample=False).equal(expected)
