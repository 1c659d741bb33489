"""A thread that never chose is told so, once, where a file of several tasks leaves it open what it should run."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import make_inputs
from vtw_search import Policy, PolicySet, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.errors import UnchosenTaskWarning
from vtw_search.policies import TaskPolicy


def policies(model: Any, *layers: int) -> PolicySet:
    tasks = {f"t{layer}": TaskPolicy(policy=Policy.withdraw(layer)) for layer in layers}
    return PolicySet(model=find_adapter(model).facts(model).fingerprint, tasks=tasks)


def warned(run: Callable[[], Any], here: bool = False) -> list[str]:
    """Run something in this thread or another one; return the warnings that it causes."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        if here:
            run()
        else:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    return [str(each.message) for each in found if each.category is UnchosenTaskWarning]


def test_a_choice_in_one_thread_and_a_call_in_another_is_warned_of_once(tiny_llava: Any) -> None:
    def call() -> None:
        tiny_llava.generate(**make_inputs((1,)), max_new_tokens=2, do_sample=False)

    with apply_policy(tiny_llava, policies(tiny_llava, 2, 3)) as active:
        active.use("t2")
        assert warned(call, here=True) == []
        [message] = warned(call)
        assert "the policy of the default" in message
        assert "active.use(task)" in message
        assert warned(call) == []


@pytest.mark.parametrize(
    "layers,task,chosen_elsewhere,here,expected",
    [
        ((2, 3), None, False, True, False),
        ((2, 3), None, True, True, True),
        ((2, 3), None, False, False, True),
        ((2, 3), None, True, False, True),
        ((2, 3), "t2", False, True, False),
        ((2, 3), "t2", True, True, False),
        ((2, 3), "t2", False, False, False),
        ((2, 3), "t2", True, False, True),
        ((2,), None, True, False, False),
    ],
)
def test_who_is_warned(
    tiny_llava: Any, layers: tuple[int, ...], task: str | None, chosen_elsewhere: bool, here: bool, expected: bool
) -> None:
    with apply_policy(tiny_llava, policies(tiny_llava, *layers), task=task) as active:
        if chosen_elsewhere:
            assert warned(lambda: active.use(f"t{layers[-1]}")) == []
        found = warned(lambda: tiny_llava(**make_inputs((1,))), here)
    assert len(found) == expected


def test_a_policy_by_hand_is_meant_for_every_thread(tiny_llava: Any) -> None:
    with apply_policy(tiny_llava, Policy.withdraw(2)) as active:
        active.use(Policy.withdraw(3))
        assert warned(lambda: tiny_llava(**make_inputs((1,)))) == []
