"""What a scorer is, and what it may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from vtw_search.errors import PolicyError, near_matches
from vtw_search.frozen import Frozen

Reads = Literal["nothing", "hidden", "attention", "vision"]


class Attention(Protocol):
    """Attention of one decoder layer over the tokens at hand; a row is computed only when it is asked for."""

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Return (B, R, T) attention probabilities, mean over heads, of the query columns `index`, (B, R)."""

    def visible(self, index: torch.Tensor) -> torch.Tensor:
        """Return (B, R, T) bool, true where the query may see the key."""


class Vision(Protocol):
    """What the vision tower computed for the visual tokens at hand, as (B, T) scores; zero at all other tokens."""

    def cls_attention(self, layer: int, by_row: bool = False) -> torch.Tensor:
        """Attention of the class token on each patch in one layer, mean over heads; `by_row`, its row's mean."""

    def received_attention(self, layer: int, by_row: bool = False) -> torch.Tensor:
        """Attention that each patch receives from all patches in one layer, mean over heads, sum over queries."""

    def cls_similarity(self) -> torch.Tensor:
        """Cosine similarity of each patch to the class token, where the projector takes its features."""

    @property
    def layers(self) -> int:
        """Number of layers of the tower."""


@dataclass(frozen=True)
class View:
    """What a scorer may look at, at the input of the stage's layer.

    Attributes:
        visual: (B, T) bool, true at visual tokens.
        prompt: (B, T) bool, true at real tokens of the prompt; false at padding and at answer tokens.
        ordinal: (B, T) number of each visual token among all visual tokens that its row began with.
        wanted: (B,) how many visual tokens are going to stay, or None where the scores decide.
        hidden: (B, T, D) hidden states.
        attention: of the layer before, for scorers that read it.
        vision: for scorers that read it.
    """

    visual: torch.Tensor
    prompt: torch.Tensor
    ordinal: torch.Tensor
    wanted: torch.Tensor | None
    hidden: torch.Tensor
    attention: Attention | None = None
    vision: Vision | None = None

    @property
    def last(self) -> torch.Tensor:
        """(B, 1) column of the last prompt token."""
        columns = torch.arange(self.prompt.shape[1], device=self.prompt.device)
        return (columns * self.prompt).amax(dim=1, keepdim=True)

    @property
    def instruction(self) -> torch.Tensor:
        """(B, T) bool, true at the prompt's text behind the last visual token; at all its text if there is none."""
        behind = (self.visual.flip(1).cumsum(dim=1) == 0).flip(1)
        return self.prompt & behind


@dataclass(frozen=True)
class Shape:
    """Sizes that a scorer's cost depends on, of one sample.

    Attributes:
        tokens, visual, instruction: at the stage: all tokens, visual ones, text behind the last visual one.
        width: query heads times head size of the decoder.
        images, patches, vision_width: of the tower; 0 where it is not known.
        vision_layers: of the tower.
    """

    tokens: int
    visual: int
    instruction: int
    width: int
    images: int = 0
    patches: int = 0
    vision_width: int = 0
    vision_layers: int = 0


class Scorer(Protocol):
    """Ranks visual tokens; a higher score stays longer.

    Attributes:
        name: its name in policies.
        scoring_version: raised by hand when its results change; part of every measurement's identity.
        reads: what it looks at: `nothing` but counts and places, the `hidden` states, the `attention` of the decoder
            layer before, or `vision`, what the tower computed.
        options: its options and their defaults.
    """

    name: str
    scoring_version: int
    reads: Reads
    options: Mapping[str, Any]

    def score(self, view: View, options: Mapping[str, Any]) -> torch.Tensor:
        """Return (B, T) scores; what stands at other than visual tokens means nothing."""

    def vision_needs(self, layers: int, options: Mapping[str, Any]) -> VisionNeeds:
        """Return what has to be noted while the vision tower runs."""

    def macs(self, shape: Shape, options: Mapping[str, Any]) -> int:
        """Return the multiply-adds that scoring costs on top of the model's own, closed form."""


@dataclass(frozen=True)
class VisionNeeds:
    """What is noted while a vision tower runs: class-token rows, received attention, and the class similarity."""

    cls_layers: frozenset[int] = frozenset()
    received_layers: frozenset[int] = frozenset()
    similarity: bool = False

    def __or__(self, other: VisionNeeds) -> VisionNeeds:
        return VisionNeeds(
            self.cls_layers | other.cls_layers,
            self.received_layers | other.received_layers,
            self.similarity or other.similarity,
        )


class PlainScorer:
    """A scorer without options that reads nothing of the tower and costs nothing; others override what differs."""

    scoring_version = 1
    options: Mapping[str, Any] = {}

    def vision_needs(self, layers: int, options: Mapping[str, Any]) -> VisionNeeds:
        """Return that nothing is needed."""
        return VisionNeeds()

    def macs(self, shape: Shape, options: Mapping[str, Any]) -> int:
        """Return 0."""
        return 0


def complete_options(scorer: Scorer, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scorer's options with its defaults filled in; PolicyError for one it does not have or a wrong kind."""
    return complete(f"scorer {scorer.name!r}", scorer.options, given)


def complete(owner: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in defaults; a default that is a tuple lists the allowed values, the first of which is the default.

    Raises:
        PolicyError: an option is unknown, or its value is not allowed.
    """
    for name, value in given.items():
        if name not in defaults:
            raise PolicyError(f"unknown option {name!r} of {owner}", remedy=near_matches(name, defaults))
        default = defaults[name]
        if isinstance(default, tuple):
            if value not in default:
                raise PolicyError(f"option {name!r} of {owner} must be one of {', '.join(default)}", value=value)
        elif type(value) is not type(default):
            raise PolicyError(f"option {name!r} of {owner} must be of type {type(default).__name__}", value=value)
    return Frozen(
        (name, given.get(name, default[0] if isinstance(default, tuple) else default))
        for name, default in defaults.items()
    )
