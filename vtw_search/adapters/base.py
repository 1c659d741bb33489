"""The questions that the product asks about a model family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from vtw_search.facts import ModelFacts

if TYPE_CHECKING:
    # Deployment does not need Pillow.
    from PIL import Image


@dataclass(frozen=True)
class ModuleCall:
    """A module and the arguments of one call: what a counter needs to count it, on the meta device where possible."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class MacsModel(Protocol):
    """The parts of a prefill as calls that a counter can trace without weights. Batch size is 1."""

    def vision(self, images: int) -> ModuleCall:
        """Vision tower on `images` images."""

    def projector(self, images: int) -> ModuleCall:
        """Projector on the features of `images` images."""

    def decoder_layer(self, layer: int, tokens: int) -> ModuleCall:
        """Decoder layer `layer` on `tokens` tokens."""

    def lm_head(self) -> ModuleCall:
        """Output projection of one position."""


@dataclass(frozen=True)
class LayerArguments:
    """Names of a decoder layer's keyword arguments that have a token dimension.

    Attributes:
        tokens: argument name -> token dimension; the value may be a tensor or a tuple of tensors. Batch is dimension 0.
        mask: name of the attention mask argument, (B or 1, 1 or heads, queries, keys).
        cache: name of the key-value cache argument.
    """

    tokens: Mapping[str, int]
    mask: str = "attention_mask"
    cache: str = "past_key_values"


class Adapter(Protocol):
    """Everything that is specific to a model family."""

    layer_arguments: LayerArguments

    def facts(self, model: nn.Module) -> ModelFacts:
        """Describe `model`; ModelError when it is not of this family."""

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the decoder layers in order."""

    def visual_mask(self, model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return (B, T) bool, true at the visual tokens of a forward call's keyword arguments.

        Raises:
            RuntimeUseError: the inputs do not tell which tokens are visual.
        """

    def encode(
        self, processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]
    ) -> dict[str, torch.Tensor]:
        """Return a left-padded batch for `generate`; one prompt (without template) and its images per row."""

    def macs_model(self, model: nn.Module) -> MacsModel:
        """Return the parts of `model`'s prefill."""
