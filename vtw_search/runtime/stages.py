"""Stages at work: the tokens that are there, and the one place where a stage chooses which of them stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vtw_search.operators import Operator, Request, keep_counts
from vtw_search.policies import Stage
from vtw_search.runtime.slicing import gather_tokens
from vtw_search.runtime.vision import PlacedVision, VisionNotes
from vtw_search.scorers import (
    Attention,
    Scorer,
    View,
    Vision,
    VisionNeeds,
)
from vtw_search.tokens import Grid, Selection, TokenLayout, everything, select, subject


@dataclass(frozen=True)
class ReadyStage:
    """A stage with everything looked up."""

    stage: Stage
    operator: Operator
    options: dict[str, Any]
    scorer: Scorer | None
    scorer_options: dict[str, Any]

    @property
    def layer(self) -> int:
        """K, 0 for a stage before the decoder."""
        return self.stage.layer

    @property
    def recounts(self) -> bool:
        """Whether positions are numbered anew."""
        return self.stage.position == "recount"

    @property
    def reads(self) -> str:
        """What the scorer looks at; `nothing` without one."""
        return self.scorer.reads if self.scorer else "nothing"

    @property
    def needs_grids(self) -> bool:
        """Whether the operator works on grids."""
        return self.operator.keeps == "share"

    @property
    def choice(self) -> Stage:
        """The stage wherever it stands: without a scorer it leaves the same of the same tokens at every layer."""
        return self.stage.model_copy(update={"layer": min(self.layer, 1)})

    @property
    def needs_whole_prompt(self) -> bool:
        """Whether it cannot act on parts of a prompt; so it is with operators that do not say."""
        return self.scorer is not None or not getattr(self.operator, "in_parts", False)

    def vision_needs(self, layers: int) -> VisionNeeds:
        """Return what has to be noted of a tower with `layers` layers."""
        return self.scorer.vision_needs(layers, self.scorer_options) if self.scorer else VisionNeeds()


@dataclass(frozen=True, eq=False)
class Present:
    """The tokens of a call that are still there; tensors are (B, n). Each is itself alone, so that it can be a key.

    Attributes:
        columns: where each stands in the call's sequence.
        visual: true at visual tokens that may leave.
        padding: true at padding.
        prompt: true at real tokens of the prompt; false at padding and at answer tokens.
        ordinal: number of each visual token among those that its row began with.
        places: the column whose position each token has; `columns`, unless positions were numbered anew.
        filler: true where a shorter row was filled up; None where none was.
    """

    columns: torch.Tensor
    visual: torch.Tensor
    padding: torch.Tensor
    prompt: torch.Tensor
    ordinal: torch.Tensor
    places: torch.Tensor
    filler: torch.Tensor | None = None

    @classmethod
    def of(
        cls, visual: torch.Tensor, padding: torch.Tensor, prompt: torch.Tensor | None = None, ends: bool = True
    ) -> Present:
        """Return all tokens of a call.

        Args:
            visual, padding: of the call.
            prompt: as the attribute; without it every real token belongs to the prompt.
            ends: whether the prompt ends in this call.
        """
        prompt = ~padding if prompt is None else prompt
        columns = torch.arange(visual.shape[1], device=visual.device).expand(visual.shape)
        ordinal = visual.long().cumsum(dim=1) - 1
        return cls(columns, subject(visual, prompt, ends), padding, prompt, ordinal, columns)

    @property
    def selection(self) -> Selection:
        """Columns and fillers."""
        return Selection(self.columns, self.filler)

    def behind(self, start: int) -> Present:
        """Return the tokens from column `start` on."""
        parts = (self.columns, self.visual, self.padding, self.prompt, self.ordinal, self.places)
        return Present(*(part[:, start:] for part in parts))

    def take(self, kept: Selection, recount: bool) -> Present:
        """Return what is left when `kept`, columns of these tokens, stay."""
        columns, visual, padding, prompt, ordinal, places = (
            value.gather(1, kept.index)
            for value in (self.columns, self.visual, self.padding, self.prompt, self.ordinal, self.places)
        )
        if kept.filler is not None:
            visual, padding, prompt = visual & ~kept.filler, padding | kept.filler, prompt & ~kept.filler
        if recount:
            places = self._counted(kept)
        return Present(columns, visual, padding, prompt, ordinal, places, kept.filler)

    def _counted(self, kept: Selection) -> torch.Tensor:
        """Number the tokens that stay without gaps, from where the row's first real token stood."""
        first = self.padding.long().cumprod(dim=1).sum(dim=1, keepdim=True).clamp_max(self.padding.shape[1] - 1)
        start = self.places.gather(1, first)
        # Fillers stand among the tokens that stay, and take no number.
        stays = torch.ones_like(kept.index, dtype=torch.bool) if kept.filler is None else ~kept.filler
        return (start + stays.long().cumsum(dim=1) - 1).clamp_min(0)


@dataclass(frozen=True)
class Insight:
    """What a stage's scorer and operator may look at beside the tokens themselves; what is not needed is left out."""

    attention: Attention | None = None
    vision: VisionNotes | None = None
    whole_visual: torch.Tensor | None = None
    grids: Sequence[Grid] = ()

    def placed_vision(self, present: Present) -> Vision | None:
        """Return the tower's notes, placed at the tokens that are there."""
        if self.vision is None or self.whole_visual is None:
            return None
        whole = present.columns.shape == self.whole_visual.shape
        return PlacedVision(self.vision, self.whole_visual, None if whole else present.columns)

    def layout(self, present: Present, whole_grids: bool) -> TokenLayout:
        """Return the roles of the tokens, for operators; a filler is padding.

        Args:
            present: the tokens that are there.
            whole_grids: whether all that is visual is asked for, even what may not leave.
        """
        if not whole_grids or self.whole_visual is None:
            return TokenLayout(present.visual, present.padding)
        return TokenLayout(self.whole_visual.gather(1, present.columns) & ~present.padding, present.padding)


def advance(
    ready: ReadyStage, present: Present, hidden: torch.Tensor, insight: Insight
) -> tuple[Present, torch.Tensor]:
    """Let a stage act.

    Args:
        ready: the stage.
        present: (B, n) tokens that reach it.
        hidden: (..., B, n, D) their hidden states.
        insight: what its scorer and operator need.

    Returns:
        the tokens that are left, and their hidden states.
    """
    request = Request(ready.stage.keep, _scores(ready, present, hidden, insight), insight.grids, ready.options)
    layout = insight.layout(present, ready.needs_grids)
    # Whatever the operator says, padding leaves, and nothing else does that is not its subject.
    kept = select(~present.padding & (ready.operator.keep(layout, request) | ~present.visual))
    hidden = ready.operator.merge(hidden, layout, request)
    if kept is None:
        kept = everything(len(present.columns), 0, present.columns.shape[1], hidden.device)
    return present.take(kept, ready.recounts), gather_tokens(hidden, kept.index, -2)


def _scores(ready: ReadyStage, present: Present, hidden: torch.Tensor, insight: Insight) -> torch.Tensor | None:
    if ready.scorer is None:
        return None
    keep, visual = ready.stage.keep, present.visual
    wanted = keep_counts(keep, visual.sum(dim=1)) if isinstance(keep, int | float) else None
    vision = insight.placed_vision(present)
    # Families that carry several streams have the one that layers read in front.
    stream = hidden if hidden.ndim == 3 else hidden.flatten(0, -4)[0]
    view = View(visual, present.prompt, present.ordinal, wanted, stream, insight.attention, vision)
    return ready.scorer.score(view, ready.scorer_options)
