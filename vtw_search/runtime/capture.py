"""What decoder layers receive in the calls of a model, under a policy or not."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn

Call = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def captured(layers: Iterable[nn.Module]) -> Iterator[list[list[Call]]]:
    """Note the arguments of every call of `layers`, as they are after all hooks that were registered before.

    Yields:
        per layer, one (args, kwargs) per call.
    """
    modules = list(layers)
    calls: list[list[Call]] = [[] for _ in modules]

    def note(number: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[number].append((args, dict(kwargs)))

    with ExitStack() as stack:
        for number, layer in enumerate(modules):
            stack.callback(layer.register_forward_pre_hook(partial(note, number), with_kwargs=True).remove)
        yield calls


_names: dict[type[nn.Module], tuple[str, ...]] = {}


def argument_names(layer: nn.Module) -> tuple[str, ...]:
    """Return the names of a layer's arguments in order; some families pass more than the hidden states by place."""
    kind = type(layer)
    if kind not in _names:
        _names[kind] = tuple(inspect.signature(kind.forward).parameters)[1:]
    return _names[kind]


def by_name(layer: nn.Module, call: Call) -> dict[str, Any]:
    """Return the arguments of a layer's call by name, also those that were passed by place."""
    args, kwargs = call
    return {**dict(zip(argument_names(layer), args, strict=False)), **kwargs}
