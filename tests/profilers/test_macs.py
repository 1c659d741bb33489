"""How a call is counted: its arguments, its outputs, what it leaves behind, and sums of counts."""

import logging
from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from profilers.macs import count_macs
from tests.profilers.counted import Function, meta


@dataclass
class Pair:
    left: Tensor
    right: Tensor | None


OUTPUTS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "tuple with None": lambda a, b: (a, None, (b,)),
    "mapping": lambda a, b: UserDict(a=a, b=b),
    "dict": lambda a, b: {"a": a, "nested": [{"b": b}]},
    "ModelOutput": lambda a, b: BaseModelOutput(last_hidden_state=a, hidden_states=(b,)),
    "dataclass": lambda a, b: [Pair(a, None), Pair(b, a)],
    "one tensor": lambda a, b: a + b,
}


@pytest.mark.parametrize("combine", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_every_tensor_of_the_output_keeps_its_work(combine: Callable[[Tensor, Tensor], object]) -> None:
    left, right = nn.Linear(2, 3), nn.Linear(2, 3)
    module = Function(lambda x: combine(left(x), right(x)), left=left, right=right)
    count = count_macs(module, torch.ones(4, 2))
    assert count.total == 2 * 4 * 2 * 3
    assert count.uncalled_modules == ()


def test_tensors_are_found_anywhere_in_the_arguments() -> None:
    def forward(first: list[Tensor], *, module: dict[str, Tensor], twice: bool, nothing: None) -> Tensor:
        product = first[1] @ module["right"]
        return product @ product if twice else product

    call = {"module": {"right": meta(3, 3)}, "nothing": None}
    assert count_macs(Function(forward), [meta(1), meta(3, 3)], twice=False, **call).total == 27
    assert count_macs(Function(forward), [meta(1), meta(3, 3)], twice=True, **call).total == 54


def test_shared_module_counts_at_every_call() -> None:
    linear = nn.Linear(3, 3)
    module = Function(lambda x: linear(linear(x)) + linear.forward(x), linear=linear)
    assert count_macs(module, torch.ones(2, 3)).total == 3 * 2 * 3 * 3


def test_module_that_does_nothing_counts_zero() -> None:
    count = count_macs(nn.Sequential(nn.Identity()), torch.ones(2))
    assert (count.total, count.not_counted, count.uncalled_modules) == (0, {}, ("0",))


def test_module_without_tensor_output_is_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 2), Function(lambda _: {"loss": None, "name": "text"}))
    with pytest.raises(ValueError, match=r"must return a tensor; Sequential returned none.*Wrap it"):
        count_macs(module, torch.ones(1, 2))


def hooks_of(module: nn.Module) -> Iterator[tuple[list[object], list[object]]]:
    for submodule in module.modules():
        yield list(submodule._forward_hooks.values()), list(submodule._forward_pre_hooks.values())


def test_failing_call_leaves_no_hooks() -> None:
    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("from the forward")

    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), Function(fail)))
    module[1].register_forward_hook(lambda *_: None)
    before = list(hooks_of(module))
    with pytest.raises(RuntimeError, match="from the forward"):
        count_macs(module, torch.ones(1, 2))
    assert list(hooks_of(module)) == before
    assert torch._C._get_tracing_state() is None
    assert count_macs(module[0], torch.ones(1, 2)).total == 4


def test_count_is_one_call_without_traces(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    seen: list[bool] = []

    def forward(x: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return x.tanh() if bool(x.sum() > x.shape[0]) else x.sigmoid()

    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), Function(forward, unused=nn.Linear(2, 2)))
    module[1].eval()
    modes, hooks = [part.training for part in module.modules()], list(hooks_of(module))
    with caplog.at_level(logging.DEBUG):
        count = count_macs(module, torch.ones(1, 2))
    assert seen == [False]
    assert count.not_counted
    assert count.uncalled_modules == ("2.unused",)
    assert [part.training for part in module.modules()] == modes
    assert list(hooks_of(module)) == hooks
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert (capfd.readouterr(), caplog.records, recwarn.list) == (("", ""), [], [])
