"""What adapters describe a family by: its vision tower, what its decoder layers receive, its kinds of visual input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import nn

from vtw_search.tokens import Grid


@dataclass(frozen=True)
class VisionTower:
    """A vision tower whose patches are the visual tokens, one to one or merged in squares, in their order.

    Attributes:
        module: called once for all images of a batch.
        layers: number of its self-attention layers.
        class_tokens: how many tokens stand before the patches: 1 for a class token, else 0.
        feature_layer: index into its hidden states of what the projector takes; -1 is its last hidden state.
        grid: patches of one image.
        merge: a visual token stands for merge x merge patches.
    """

    module: nn.Module
    layers: int
    class_tokens: int
    feature_layer: int
    grid: Grid
    merge: int = 1

    @property
    def tokens(self) -> int:
        """Visual tokens of one image."""
        return self.grid.tokens // self.merge**2

    def merged(self, scores: torch.Tensor) -> torch.Tensor:
        """Return (images, patches) scores as (images, tokens): the mean over the patches of each token."""
        rows, columns = self.grid.rows // self.merge, self.grid.columns // self.merge
        squares = scores.reshape(len(scores), rows, self.merge, columns, self.merge)
        return squares.mean(dim=(2, 4)).flatten(1)


@dataclass(frozen=True)
class LayerArguments:
    """Names of a decoder layer's arguments that have a token dimension.

    Attributes:
        tokens: argument name -> token dimension, counted from the end; the dimension before it is the batch. A value
            may be a tensor or nested tuples and dictionaries of tensors.
        positions: those of `tokens` that say where a token stands.
        mask: name of the attention mask argument, (B or 1, 1 or heads, queries, keys).
        cache: name of the key-value cache argument.
    """

    tokens: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType(
            {"position_ids": -1, "position_embeddings": -2, "per_layer_input": -2, "moe_mm_token_type_ids": -1}
        )
    )
    positions: frozenset[str] = frozenset({"position_ids", "position_embeddings"})
    mask: str = "attention_mask"
    cache: str = "past_key_values"


@dataclass(frozen=True)
class Modality:
    """How one kind of visual input comes into a forward call.

    Attributes:
        name: its key in `mm_encoder_outputs`, which `generate` passes in place of pixels.
        token_settings: names in the config of the placeholder's token id; the first that exists holds.
        inputs: arguments that carry pixels or features of this kind.
    """

    name: str
    token_settings: tuple[str, ...]
    inputs: tuple[str, ...]


IMAGE = Modality("image", ("image_token_id", "image_token_index"), ("pixel_values",))
VIDEO = Modality("video", ("video_token_id", "video_token_index"), ("pixel_values_videos",))
