"""On a GPU every read of a tensor's value makes the host wait. Prefill may read once, decoding never."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import ragged_rows
from vtw_search import Policy, apply_policy

# What makes the host wait for a GPU: reading a value, and shapes that depend on values.
WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero", "aten.equal")


class Counting(TorchDispatchMode):
    """Counts the operators that make the host wait; `tolist` and `item` of more than one element are copies to CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function).rsplit(".", 1)[0]
        if name in WAITING or (name == "aten.index" and any(_is_mask(place) for place in args[1])):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def _is_mask(place: Any) -> bool:
    return place is not None and place.dtype == torch.bool


def waits(model: Any, inputs: Any, policy: Policy, tokens: int) -> Counter[str]:
    """Return what generating `tokens` tokens waits for."""
    with apply_policy(model, policy), Counting() as counting:
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return counting.found


@pytest.mark.parametrize("rows", ["one", "ragged"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "internvl"])
def test_a_policy_adds_one_read_to_a_prefill_and_none_to_decoding(name: str, rows: str) -> None:
    family = find(name)
    inputs = family.inputs([("small",)] if rows == "one" else ragged_rows(family))
    model, policy = family.build(), Policy.withdraw(3)
    added = {
        tokens: (waits(model, inputs, policy, tokens) - waits(model, inputs, Policy.keep_all(), tokens)).total()
        for tokens in (1, 5)
    }
    # The two lengths of the selection are copied together, which is no operator that is counted here.
    assert added[1] == 0
    assert added[5] == added[1]
