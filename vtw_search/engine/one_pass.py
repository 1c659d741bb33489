"""All candidates in one layer-synchronous forward pass.

Below its first stage a candidate equals the reference, so the reference is stepped together with one small branch per
candidate that has forked already. Nothing is kept per layer: memory is the sum of the branches at work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn
from transformers import DynamicCache

from vtw_search.adapters import Adapter
from vtw_search.adapters.cache_layers import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer
from vtw_search.engine.branches import ROWS, Branch, Slicer, step
from vtw_search.engine.trie import Node, build_trie
from vtw_search.policies import Stage
from vtw_search.runtime.attention import AttentionProbe, Call, LayerAttention
from vtw_search.runtime.capture import argument_names
from vtw_search.runtime.slicing import PerObject
from vtw_search.runtime.stages import Insight, Present, ReadyStage, advance
from vtw_search.runtime.stepping import PrefixRecorder, stepped, tower_calls
from vtw_search.runtime.vision import TowerReader
from vtw_search.scorers import VisionNeeds


@dataclass(frozen=True)
class Prompt:
    """A batch as the engine runs it: the prompt and, behind it, the answer that all candidates are forced along.

    Attributes:
        inputs: keyword arguments of the model's forward for the whole sequence, without a cache.
        visual, padding, prompt: (B, T) bool; `prompt` is false at padding and at answer tokens.
        scored: how many of the last positions are scored.
    """

    inputs: Mapping[str, Any]
    visual: torch.Tensor
    padding: torch.Tensor
    prompt: torch.Tensor
    scored: int


@dataclass(frozen=True)
class Outcome:
    """What is left of some candidates behind the last layer.

    Attributes:
        candidates: their numbers; all have the same stages.
        hidden: (..., B, N, D) at the scored positions, before the final norm.
        visual_left: per stage, (B,) how many visual tokens each row has left.
    """

    candidates: tuple[int, ...]
    hidden: torch.Tensor
    visual_left: tuple[torch.Tensor, ...]


class _PrefixSeesLater(Exception):  # noqa: N818 - a signal, not an error
    """Tokens before the first image see tokens behind it, so that they cannot be shared."""


def one_pass_problem(model: nn.Module, adapter: Adapter) -> str | None:
    """Say why a model's candidates cannot share one pass, or return None; they are then run one by one."""
    config: Any = model.config
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    if DummyLayer in kinds:
        return "some of its layers read the keys of an earlier layer, which branches do not keep"
    if kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
        return "its layers keep more than keys and values"
    return None


def run_one_pass(
    model: nn.Module, adapter: Adapter, prompt: Prompt, candidates: Sequence[tuple[ReadyStage, ...]],
    check: Callable[[], None] = lambda: None,
) -> list[Outcome]:  # fmt: skip
    """Run the reference and all candidates; returns one outcome per distinct sequence of stages.

    Args:
        model, adapter: the unpatched model.
        prompt: the batch.
        candidates: stages of each; no stage is keep-all, which is the reference itself.
        check: called before every layer; what it raises ends the pass.

    Raises:
        RuntimeUseError: a scorer cannot read what it needs.
    """
    first_visual = torch.where(prompt.visual.any(dim=1), prompt.visual.int().argmax(dim=1), prompt.visual.shape[1])
    behind_prompt = int(prompt.prompt.int().flip(1).argmax(dim=1).min())  # answers are no shared prefix
    prefix = min(int(first_visual.min()), prompt.visual.shape[1] - behind_prompt - 1)
    try:
        return _Pass(model, adapter, prompt, candidates, prefix, check).run()
    except _PrefixSeesLater:
        return _Pass(model, adapter, prompt, candidates, 0, check).run()


class _Pass:
    def __init__(
        self, model: nn.Module, adapter: Adapter, prompt: Prompt, candidates: Sequence[tuple[ReadyStage, ...]],
        prefix: int, check: Callable[[], None],
    ) -> None:  # fmt: skip
        self.model, self.adapter, self.prompt, self.prefix, self.check = model, adapter, prompt, prefix, check
        self.root = build_trie(candidates)
        self.layers = len(adapter.decoder_layers(model))
        length = prompt.visual.shape[1]
        self.slicer = Slicer(adapter.layer_arguments, length, prefix)
        self.recorder = PrefixRecorder(model.config, prefix)
        self.reference = Present.of(prompt.visual, prompt.padding, prompt.prompt).behind(prefix)
        self.most_tokens = prompt.visual.numel()
        self.branches: list[Branch] = []
        self.left: dict[Node, tuple[torch.Tensor, ...]] = {self.root: ()}
        self.calls: list[Call] = []
        self.probe = ExitStack()
        self.tower = TowerReader()
        self.plain: WeakKeyDictionary[Present, WeakValueDictionary[Stage, Present]] = WeakKeyDictionary()
        self.checked: PerObject[None] = PerObject()
        self.insight = Insight(whole_visual=prompt.visual, grids=self._grids())
        self.outcomes: list[Outcome] = []

    @torch.inference_mode()
    def run(self) -> list[Outcome]:
        """Run the model's own forward, and the branches along with it."""
        cache = self.adapter.layer_arguments.cache
        with (
            self.probe,
            tower_calls(self.model, self.adapter, self._before_tower, self._after_tower),
            stepped(self.model, self.adapter, self._before, self._after),
        ):
            self.model(**self.prompt.inputs, **{cache: self.recorder}, use_cache=True)
        return self.outcomes

    def _before_tower(self) -> None:
        tower, needs = self.adapter.vision_tower(self.model), VisionNeeds()
        assert tower is not None
        for node in self.root.walk():
            if node.ready is not None:
                needs |= node.ready.vision_needs(tower.layers)
        self.tower.start(tower, needs)

    def _after_tower(self, output: Any) -> None:
        self.tower.stop(output)

    def _grids(self) -> list[Any]:
        if not any(node.ready is not None and node.ready.needs_grids for node in self.root.walk()):
            return []
        return self.adapter.grids(self.model, self.prompt.inputs, int(self.prompt.visual.sum()))

    def _before(self, number: int, layer: nn.Module, named: dict[str, Any]) -> None:
        self.check()
        self.checked.of(named.get(self.slicer.arguments.mask), self._check_prefix)
        hidden = named[argument_names(layer)[0]]
        self._fork(number, hidden.narrow(-2, self.prefix, hidden.shape[-2] - self.prefix))
        self.branches = [branch for branch in self.branches if branch.node.until(self.layers) > number]
        self.calls.clear()
        if self.root.reads_attention_of(number):
            self.probe.enter_context(AttentionProbe(self.calls.append))

    def _after(self, number: int, layer: nn.Module, named: dict[str, Any], output: Any) -> Any:
        self.probe.close()
        if self.branches:
            step(self.branches, layer, named, self.slicer, self.recorder, number, self.most_tokens)
        if number < self.layers - 1:
            return None
        hidden = output[0] if isinstance(output, tuple) else output
        self._finish(hidden)
        # What the model does behind its last layer is done for the scored positions alone, later.
        last = hidden.narrow(-2, hidden.shape[-2] - 1, 1)
        return (last, *output[1:]) if isinstance(output, tuple) else last

    def _fork(self, number: int, hidden: torch.Tensor) -> None:
        """Begin the branches whose stage acts at the input of this layer."""
        parents: list[tuple[Node, Present, torch.Tensor, LayerAttention | None]] = [
            (branch.node, branch.present, branch.hidden, branch.attention) for branch in self.branches
        ]
        if any(child.layer == number for child in self.root.children):
            tokens = self.reference.columns.shape[1]
            attention = LayerAttention(self.calls, tokens) if self.calls else None
            parents.append((self.root, self.reference, hidden, attention))
        for node, present, states, attention in parents:
            for child in node.children:
                if child.layer == number:
                    self.branches.append(self._forked(node, child, present, states, attention))

    def _forked(
        self, parent: Node, child: Node, present: Present, hidden: torch.Tensor, attention: LayerAttention | None
    ) -> Branch:
        assert child.ready is not None
        insight = Insight(attention, self.tower.notes, self.insight.whole_visual, self.insight.grids)
        left, states = advance(child.ready, present, hidden, insight)
        if child.ready.scorer is None:
            # One object for tokens that are the same, so that arguments need to be cut once only.
            left = self.plain.setdefault(present, WeakValueDictionary()).setdefault(child.ready.choice, left)
        self.left[child] = (*self.left[parent], left.visual.sum(dim=1))
        return Branch(child, left, states)

    def _finish(self, reference: torch.Tensor) -> None:
        scored = self.prompt.scored
        ends = [(self.root, reference), *((branch.node, branch.hidden) for branch in self.branches)]
        for node, hidden in ends:
            if node.candidates:
                last = hidden.narrow(-2, hidden.shape[-2] - scored, scored).clone()
                self.outcomes.append(Outcome(tuple(node.candidates), last, self.left[node]))
        self.branches = []

    def _check_prefix(self, mask: torch.Tensor | None) -> None:
        if mask is None or self.prefix == 0:
            return
        later = mask[..., : self.prefix, self.prefix :]
        seen = later if mask.dtype == torch.bool else later > torch.finfo(mask.dtype).min / 2
        if bool(seen.any()):
            raise _PrefixSeesLater


def logits_of(
    model: nn.Module, adapter: Adapter, outcomes: Sequence[Outcome], token: int, most_values: int
) -> Iterator[tuple[Outcome, torch.Tensor]]:
    """Yield each outcome with its logits, (B, N, V), by what the model itself does behind its last layer.

    The model is called on one text token, whose last hidden state is replaced.

    Args:
        model, adapter: the unpatched model.
        outcomes: of `run_one_pass`.
        token: id of an ordinary text token.
        most_values: bound on the number of logits that are computed at once, as far as one outcome allows.
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    ids = torch.full((1, 1), token, device=outcomes[0].hidden.device)
    rows, scored = outcomes[0].hidden.shape[ROWS], outcomes[0].hidden.shape[-2]
    size = max(1, most_values // (rows * scored * vocabulary))
    for start in range(0, len(outcomes), size):
        chunk = outcomes[start : start + size]
        logits = _tail(model, adapter, ids, torch.cat([outcome.hidden for outcome in chunk], dim=ROWS))
        yield from zip(chunk, torch.split(logits, rows), strict=True)


@torch.inference_mode()
def _tail(model: nn.Module, adapter: Adapter, ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    last = len(adapter.decoder_layers(model)) - 1

    def replace(number: int, layer: nn.Module, named: dict[str, Any], output: Any) -> Any:
        if number < last:
            return None
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    with stepped(model, adapter, lambda *_: None, replace):
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits
