"""State of one forward call of a model under a policy."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import Cache

from vtw_search.errors import RuntimeUseError
from vtw_search.runtime.attention import AttentionProbe, Call, LayerAttention
from vtw_search.runtime.caches import Held
from vtw_search.runtime.slicing import PerObject
from vtw_search.runtime.stages import Insight, Present, ReadyStage, advance
from vtw_search.tokens import Selection, everything


@dataclass
class Forward:
    """From the entry of a call to its exit.

    Attributes:
        stages: of the policy; empty when nothing leaves in this call and nothing has left before.
        queries: how many new tokens there are.
        past: what the layers where tokens have left hold of earlier tokens; None when they have no cache.
        present: the new tokens, per stage that has acted, with all of them in front; None when none leaves.
        insight: what stages may look at.
        features: a tensor of the images' features, where they were encoded before; None where the tower runs now.
        noted: the cache that says already what it holds once this call is through.
        until_first_layer: closes what has to be over before the first decoder layer runs.
        cut: arguments that were cut already, by name, level and what else decides the cut.
        past_by_kind: kind of layer -> how many earlier keys the layers of this kind see.
    """

    stages: tuple[ReadyStage, ...] = ()
    queries: int = 0
    past: Held | None = None
    present: list[Present] | None = None
    insight: Insight = field(default_factory=Insight)
    features: torch.Tensor | None = None
    noted: Cache | None = None
    until_first_layer: ExitStack = field(default_factory=ExitStack)
    cut: defaultdict[tuple[Any, ...], PerObject[Any]] = field(default_factory=lambda: defaultdict(PerObject))
    past_by_kind: dict[str, int] = field(default_factory=dict)
    _probe: ExitStack = field(default_factory=ExitStack)
    _calls: list[Call] = field(default_factory=list)

    @property
    def start(self) -> int:
        """How many tokens came before."""
        return 0 if self.past is None else self.past.total

    @property
    def places(self) -> tuple[int, ...]:
        """Layers of the stages."""
        return tuple(ready.layer for ready in self.stages)

    def level(self, layer: int) -> int:
        """Return the number of the last stage that acts at or below `layer`, -1 for none."""
        return sum(ready.layer <= layer for ready in self.stages) - 1

    def new(self, level: int) -> Present | None:
        """Return which of the new tokens are there at a level, None when all are."""
        return None if self.present is None or level < 0 else self.present[level + 1]

    def keys(self, level: int) -> Selection:
        """Return the positions of the whole sequence that layers of a level hold once they ran."""
        new = self.new(level)
        if self.past is None:
            assert new is not None
            return new.selection
        if new is None:
            device = self.past.kept[level].index.device
            return self.past.keys(level).followed_by(everything(self.past.rows, self.start, self.queries, device))
        return self.past.keys(level).followed_by(new.selection.behind(self.start))

    def all_is_seen(self, level: int) -> bool:
        """Whether every new token is there and none of the held keys is a filler."""
        return self.present is None and self.past is not None and self.past.kept[level].filler is None

    @cached_property
    def _busy(self) -> frozenset[int]:
        """The layers at which something is done in a call that only adds tokens: the first one, and those of stages."""
        return frozenset((0, *self.places))

    @cached_property
    def _plain(self) -> bool:
        return all(self.all_is_seen(level) for level in range(len(self.stages)))

    def passes(self, layer: int, mask: Any) -> bool:
        """Whether a layer's arguments are right as they are, as most are while decoding, where every layer counts.

        Args:
            layer: its number.
            mask: its attention mask, None without one.
        """
        if self.present is not None or layer in self._busy:
            return False
        return layer < self.stages[0].layer or (mask is None and self._plain)

    def begin_reading(self, layer: int) -> None:
        """Read the attention of `layer`, if the stage behind it asks for it."""
        follower = next((ready for ready in self.stages if ready.layer == layer + 1), None)
        if self.present is not None and follower is not None and follower.reads == "attention":
            self._calls.clear()
            self._probe.enter_context(AttentionProbe(self._calls.append))

    def end_reading(self) -> None:
        """End what `begin_reading` began."""
        self._probe.close()

    def act(self, level: int, hidden: torch.Tensor) -> torch.Tensor:
        """Let the stage of a level act on the hidden states; return those of the tokens that are left.

        Raises:
            RuntimeUseError: the model has dropped tokens itself, so that the stage does not get what is there.
        """
        assert self.present is not None
        ready, present = self.stages[level], self.present[-1]
        if hidden.shape[-2] != present.columns.shape[1]:
            remedy = "use a smaller K; this family drops tokens itself behind it"
            raise RuntimeUseError("a stage must get all tokens", value=int(hidden.shape[-2]), remedy=remedy)
        attention = LayerAttention(self._calls, hidden.shape[-2]) if ready.reads == "attention" else None
        insight = Insight(attention, self.insight.vision, self.insight.whole_visual, self.insight.grids)
        left, hidden = advance(ready, present, hidden, insight)
        self.present.append(left)
        self._calls.clear()
        return hidden

    def held(self) -> Held:
        """Return what the cache is going to hold at all levels; the levels that have not acted yet hold everything."""
        levels = range(len(self.stages))
        news = None if self.present is None else [self._yet(level).selection.behind(self.start) for level in levels]
        recounted = self._recounted()
        if self.past is not None:
            return self.past.followed_by(news, self.queries, recounted)
        assert news is not None
        return Held(self.places, tuple(news), self.queries, self.queries, recounted)

    def _yet(self, level: int) -> Present:
        assert self.present is not None
        return self.present[min(level + 1, len(self.present) - 1)]

    def _recounted(self) -> torch.Tensor | None:
        if self.present is None or len(self.present) < 2 or not self.stages[0].recounts:
            return None
        whole, left = self.present[0], self.present[1]
        return (~whole.padding).sum(dim=1) - (~left.padding).sum(dim=1)

    def close(self) -> None:
        """End whatever is open; a call that raised left it so."""
        self.until_first_layer.close()
        self._probe.close()
