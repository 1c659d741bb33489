"""Multiply-adds of one call of a module, counted on a trace of that call.

One `mac` is one fused multiply-add, as fvcore counts it; `flops` is always 2 x macs. Only products of matrices are
counted: linear layers, matmul and its relatives, einsum, convolutions and scaled dot-product attention. Everything else
is left out by name (`profilers.aten`), and an operator that is neither stops the count: nothing is silently zero.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch._C import Value
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from profilers.aten import COUNTED, NOT_COUNTED, Handle, UncountedOperatorError
from profilers.tracing import TraceableCalls


@dataclass(frozen=True)
class MacsCount:
    """Multiply-adds of one call of one module.

    Attributes:
        total: macs of the call.
        by_operator: macs per counted operator; they add up to `total`.
        not_counted: calls per operator of `NOT_COUNTED`. Operators that only create, move or reshape data (fvcore's own
            list) are in neither mapping.
        by_module: macs per submodule, by its name relative to the module; "" is the module itself.
        uncalled_modules: names, relative to the module, of the submodules that left nothing in the trace. The tracer
            drops work whose result is not used, so a layer listed here may run in reality, and is not in `total`.
    """

    total: int
    by_operator: Mapping[str, int]
    not_counted: Mapping[str, int]
    uncalled_modules: tuple[str, ...]
    by_module: Mapping[str, int] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        """Floating-point operations: 2 x macs."""
        return 2 * self.total


def count_macs(module: nn.Module, /, *args: object, **kwargs: object) -> MacsCount:
    """Counts the multiply-adds of `module(*args, **kwargs)`.

    The call is made once, traced, without gradients and in the module's own training mode. Tensors may sit anywhere in
    the arguments and in the returned tuple, dict, dataclass or `ModelOutput`; all other arguments are constants. On the
    meta device nothing is computed, but torch cannot trace most convolutions there. An argument that the call changes,
    such as a cache, is changed.

    Attention is counted by the full-square convention, causal or not: see `profilers.aten.attention_macs`.

    Args:
        module: the module to call; hooks that are on it act as in any call.
        *args: positional arguments of the call.
        **kwargs: keyword arguments of the call.

    Returns:
        The count, with what it left out.

    Raises:
        UncountedOperatorError: an operator of the call is neither in `COUNTED` nor in `NOT_COUNTED`.
        ValueError: the call returned no tensor, so that its trace is empty.
    """
    call = _TensorCall(module, args, kwargs)
    handles = {name: _named(name, handle) for name, handle in COUNTED.items()}
    analysis = FlopCountAnalysis(call, call.inputs).clear_op_handles().set_op_handle(**handles)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    try:
        with torch.no_grad(), TraceableCalls():
            by_operator = {name: int(macs) for name, macs in analysis.by_operator().items()}
    finally:
        _remove_tracer_hooks(module)
    by_module = {_in_module(name): int(macs) for name, macs in analysis.by_module().items() if name}
    not_counted = dict(analysis.unsupported_ops())
    if unknown := {name: calls for name, calls in not_counted.items() if name not in NOT_COUNTED}:
        raise UncountedOperatorError(unknown)
    uncalled = tuple(sorted({_in_module(name) for name in analysis.uncalled_modules()} - {""}))
    return MacsCount(sum(by_operator.values()), by_operator, not_counted, uncalled, by_module)


class _TensorCall(nn.Module):
    """One call of a module as the tracer wants it: a tuple of tensors in, a tuple of tensors out."""

    def __init__(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        super().__init__()
        self.module = module
        self._leaves, self._structure = tree_flatten((args, kwargs))
        self._places = [place for place, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor)]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(self._leaves[place] for place in self._places)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self._structure)
        outputs = tuple(_tensors_in(self.module(*args, **kwargs)))
        if not outputs:
            raise ValueError(
                f"A counted module must return a tensor; {type(self.module).__name__} returned none, so all its work "
                "would be dropped. Wrap it in a module that returns what it computed."
            )
        return outputs


def _tensors_in(output: object) -> Iterator[Tensor]:
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, Mapping):
            yield from _tensors_in(list(leaf.values()))
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            yield from _tensors_in([getattr(leaf, field.name) for field in fields(leaf)])


def _remove_tracer_hooks(module: nn.Module) -> None:
    # fvcore leaves its hooks on when the traced call raises; hooks of others must stay.
    for submodule in module.modules():
        for hooks in (submodule._forward_pre_hooks, submodule._forward_hooks):
            for key in [key for key, hook in hooks.items() if type(hook).__module__ == "fvcore.nn.jit_analysis"]:
                del hooks[key]


def _in_module(name: str) -> str:
    # The tracer saw the module as the child "module" of a `_TensorCall`.
    return name.partition(".")[2]


def _named(name: str, handle: Handle) -> Callable[[list[Value], list[Value]], Counter[str]]:
    # Given a plain number, fvcore drops the namespace of the operator's name.
    return lambda inputs, outputs: Counter({name: handle(inputs, outputs)})
