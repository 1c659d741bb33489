"""Whatever a call brings beside it, the prompt alone decides what stays: the same tokens, or a refusal by name."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from tests.runtime.generation_modes import AT_END, MODES, PLAIN, Case, Mode, outcomes, policies, repainted
from tests.runtime.test_stages import FAMILIES
from vtw_search import Policy, apply_policy
from vtw_search.errors import PolicyError, RuntimeUseError
from vtw_search.runtime import make_ready

POLICIES = {policy.label(): policy for policy in policies()}
QUICK = ("beams without a cache", "prompt lookup", "chunks of three", "own loop without a cache")

case_of = cache(Case)


@cache
def possible(name: str, at_end: bool = False) -> dict[str, Mode]:
    """Return the modes, or those of prompts that end with an image, that a family's model can without any policy."""
    modes = AT_END if at_end else MODES
    found = outcomes(case_of(name), modes)
    return {mode: modes[mode] for mode, outcome in found.items() if outcome == "equal"}


def check(name: str, policy: Policy, modes: dict[str, Mode]) -> None:
    case = case_of(name)
    needy = any(ready.needs_whole_prompt for ready in make_ready(policy, case.adapter.facts(case.model)))
    with apply_policy(case.model, policy):
        others = (PLAIN(case, repainted(case.one, seed)) for seed in range(9, 12))
        assert not all(map(PLAIN(case, case.one).equal, others)), "other images change the answer"
        found = outcomes(case, modes)
    refused = {mode for mode, outcome in found.items() if "what stays is chosen from the whole prompt" in outcome}
    assert refused == {mode for mode in modes if needy and MODES[mode].in_parts}
    assert {mode: outcome for mode, outcome in found.items() if mode not in refused and outcome != "equal"} == {}


@pytest.mark.parametrize("label", POLICIES)
def test_the_prompt_alone_decides_on_llava(label: str) -> None:
    check("llava", POLICIES[label], {mode: MODES[mode] for mode in QUICK})


@pytest.mark.slow
@pytest.mark.parametrize("label", POLICIES)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_alone_decides(name: str, label: str) -> None:
    case, policy = case_of(name), POLICIES[label]
    try:
        ready = make_ready(policy, case.adapter.facts(case.model))
    except PolicyError as error:
        pytest.skip(str(error))
    if any(stage.needs_grids for stage in ready) and case.adapter.block_grid(case.model) is None:
        # `generate` encodes the images itself, and takes their shapes out of what it passes on.
        with apply_policy(case.model, policy), pytest.raises(RuntimeUseError, match="needs the grids"):
            PLAIN(case, case.one)
        return
    check(name, policy, possible(name))


@pytest.mark.slow
def test_every_mode_is_possible_on_most_families() -> None:
    """A mode that differs without any policy is left out, as drafts behind a prompt that is seen in both directions."""
    counts = Counter(mode for name in FAMILIES for mode in possible(name))
    assert {mode: counts[mode] for mode in MODES if counts[mode] <= len(FAMILIES) // 2} == {}
