"""What decoder layers receive in the calls of a model, under a policy or not."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn

Call = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def captured(layers: Sequence[nn.Module]) -> Iterator[list[list[Call]]]:
    """Note the arguments of every call of `layers`, as they are after all hooks that were registered before.

    Yields:
        per layer, one (args, kwargs) per call.
    """
    calls: list[list[Call]] = [[] for _ in layers]

    def note(number: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[number].append((args, dict(kwargs)))

    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            stack.callback(layer.register_forward_pre_hook(partial(note, number), with_kwargs=True).remove)
        yield calls


def by_name(layer: nn.Module, call: Call) -> dict[str, Any]:
    """Return the arguments of a layer's call by name, also those that were passed by place."""
    bound = inspect.signature(type(layer).forward).bind_partial(layer, *call[0], **call[1]).arguments
    named = {name: value for name, value in bound.items() if name not in ("self", "kwargs")}
    return {**named, **bound.get("kwargs", {})}
