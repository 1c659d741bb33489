"""Branches of the reference pass: the tokens that a candidate still has, stepped through the same layers.

A branch carries only the tokens behind the shared prefix, which are the tokens before the first image. No candidate
changes those, so that their keys and values are the reference's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from vtw_search.adapters import LayerArguments
from vtw_search.engine.trie import Node
from vtw_search.runtime.attention import AttentionProbe, Call, LayerAttention
from vtw_search.runtime.capture import argument_names
from vtw_search.runtime.slicing import PerObject, causal_mask, crop_mask, gather_tokens, map_tensors
from vtw_search.runtime.stages import Present
from vtw_search.runtime.stepping import PrefixRecorder, SharedPrefix
from vtw_search.tokens import everything

# The dimension of the batch in hidden states; some families stack several of them in front.
ROWS = -3


@dataclass(eq=False)
class Branch:
    """One node of the trie at work.

    Attributes:
        node: its place in the trie.
        present: (B, n) tokens, without the shared prefix.
        hidden: their hidden states, (..., B, n, D).
        attention: of the layer that ran last, if a child asks for it.
    """

    node: Node
    present: Present
    hidden: torch.Tensor
    attention: LayerAttention | None = None


@dataclass
class Slicer:
    """Cuts a layer's arguments, as the reference receives them, for branches; equal cuts are made once.

    Attributes:
        arguments: names of a layer's arguments.
        length: T, of the whole sequence.
        prefix: how many tokens are shared.
        made: per tokens, as long as a branch has them, the cuts of each argument.
    """

    arguments: LayerArguments
    length: int
    prefix: int
    made: WeakKeyDictionary[Present, defaultdict[str, PerObject[Any]]] = field(default_factory=WeakKeyDictionary)

    def cut(self, branch: Branch, named: dict[str, Any], name: str) -> Any:
        """Return a per-token argument or the mask, cut to a branch's tokens."""
        make = self._mask if name == self.arguments.mask else partial(self._tokens, name)
        cuts = self.made.setdefault(branch.present, defaultdict(PerObject))
        return cuts[name].of(named.get(name), partial(make, branch.present))

    def _tokens(self, name: str, present: Present, value: Any) -> Any:
        columns = present.places if name in self.arguments.positions else present.columns
        return map_tensors(value, partial(gather_tokens, index=columns, dim=self.arguments.tokens[name]))

    def _mask(self, present: Present, mask: torch.Tensor | None) -> torch.Tensor | None:
        own = present.selection
        if mask is None:
            if self.prefix == 0 and own.filler is None:
                return None  # every token sees all before it, and itself is counted from the same place
            mask = causal_mask(self.length, self.length, own.index.device)
        keys = everything(len(own.index), 0, self.prefix, own.index.device).followed_by(own)
        return crop_mask(mask, own.index, keys, self.length, self.length)


def step(
    branches: Sequence[Branch], layer: nn.Module, named: dict[str, Any], slicer: Slicer, recorder: PrefixRecorder,
    number: int, most_tokens: int,
) -> None:  # fmt: skip
    """Run `layer` on branches; those with equally many tokens run together, up to `most_tokens` tokens at once."""
    for group in _groups(branches, most_tokens):
        calls: list[Call] = []
        reads = any(branch.node.reads_attention_of(number) for branch in group)
        arguments = _joined_arguments(group, layer, named, slicer, recorder)
        if reads:
            with AttentionProbe(calls.append):
                output = layer.forward(**arguments)
        else:
            output = layer.forward(**arguments)
        hidden = output[0] if isinstance(output, tuple) else output
        rows = branches[0].present.columns.shape[0]
        for place, branch in enumerate(group):
            branch.hidden = hidden.narrow(ROWS, place * rows, rows)
            if branch.node.reads_attention_of(number):
                part = slice(place * rows, (place + 1) * rows)
                branch.attention = LayerAttention(calls, branch.present.columns.shape[1], part)


def _groups(branches: Sequence[Branch], most_tokens: int) -> Iterator[list[Branch]]:
    by_length: dict[int, list[Branch]] = {}
    for branch in branches:
        by_length.setdefault(branch.present.columns.shape[1], []).append(branch)
    for length, members in by_length.items():
        rows = members[0].present.columns.shape[0]
        size = max(1, most_tokens // max(1, rows * length))
        # Chunks of equal size: a small rest would use the machine badly.
        size = -(-len(members) // -(-len(members) // size))
        for start in range(0, len(members), size):
            yield members[start : start + size]


def _joined_arguments(
    group: Sequence[Branch], layer: nn.Module, named: dict[str, Any], slicer: Slicer, recorder: PrefixRecorder
) -> dict[str, Any]:
    names, arguments = argument_names(layer), slicer.arguments
    joined = dict(named)
    joined[names[0]] = torch.cat([branch.hidden for branch in group], dim=ROWS)
    for name in (*arguments.tokens, arguments.mask):
        if named.get(name) is not None or name == arguments.mask:
            joined[name] = _join([slicer.cut(branch, named, name) for branch in group], name, arguments)
    joined[arguments.cache] = SharedPrefix(recorder, len(group)) if slicer.prefix else None
    return joined


def _join(values: list[Any], name: str, arguments: LayerArguments) -> Any:
    """Stack the values of several branches along the batch; equal ones are not copied where that can be helped."""
    first = values[0]
    if first is None or len(values) == 1:
        return first
    if isinstance(first, dict):
        return {key: _join([value[key] for value in values], name, arguments) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(_join(list(parts), name, arguments) for parts in zip(*values, strict=True))
    if not isinstance(first, torch.Tensor):
        return first
    rows = 0 if name == arguments.mask else first.ndim + arguments.tokens[name] - 1
    if first.shape[rows] == 1 and all(value is first for value in values):
        shape = list(first.shape)
        shape[rows] = len(values)
        return first.expand(shape)
    return torch.cat(values, dim=rows)
