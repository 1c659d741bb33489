"""Walking along with a model's own forward: what is called before and after each decoder layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from vtw_search.adapters import Adapter
from vtw_search.runtime.capture import by_name

Before = Callable[[int, nn.Module, dict[str, Any]], None]
After = Callable[[int, nn.Module, dict[str, Any], Any], Any]


@contextmanager
def stepped(model: nn.Module, adapter: Adapter, before: Before, after: After) -> Iterator[None]:
    """Call `before(number, layer, arguments)` and `after(number, layer, arguments, output)` around each decoder layer.

    Arguments come by name, the hidden states first. What `after` returns replaces the layer's output, unless None.
    """

    def enter(number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        before(number, layer, by_name(layer, (args, kwargs)))

    def leave(number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        return after(number, layer, by_name(layer, (args, kwargs)), output)

    with ExitStack() as stack:
        for number, layer in enumerate(adapter.decoder_layers(model)):
            stack.callback(layer.register_forward_pre_hook(partial(enter, number), with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(partial(leave, number), with_kwargs=True).remove)
        yield


@contextmanager
def tower_calls(
    model: nn.Module, adapter: Adapter, before: Callable[[], None], after: Callable[[Any], None]
) -> Iterator[None]:
    """Call `before()` and `after(output)` around calls of the vision tower, where the adapter knows it."""
    tower = adapter.vision_tower(model)
    with ExitStack() as stack:
        if tower is not None:
            stack.callback(tower.module.register_forward_pre_hook(lambda *_: before()).remove)
            hook = tower.module.register_forward_hook(lambda _, __, output: after(output), always_call=True)
            stack.callback(hook.remove)
        yield


class PrefixRecorder(DynamicCache):
    """A cache that stays empty and notes the first `length` keys and values of the layer that ran last."""

    def __init__(self, config: Any, length: int) -> None:
        super().__init__(config=config)
        self.length = length
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is given."""
        self.keys, self.values = key_states[:, :, : self.length], value_states[:, :, : self.length]
        return key_states, value_states


class SharedPrefix(DynamicCache):
    """A cache that puts the recorded keys and values before those of each of several copies of the rows."""

    def __init__(self, recorder: PrefixRecorder, copies: int) -> None:
        super().__init__()
        self.recorder, self.copies = recorder, copies

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prefix followed by what is given."""
        keys, values = self.recorder.keys, self.recorder.values
        assert keys is not None
        assert values is not None
        return self._joined(keys, key_states), self._joined(values, value_states)

    def _joined(self, prefix: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        copies = (
            prefix
            if self.copies == 1
            else prefix.expand(self.copies, -1, -1, -1)
            if len(prefix) == 1
            else (prefix.repeat(self.copies, 1, 1, 1))
        )
        return torch.cat([copies, states], dim=2)
