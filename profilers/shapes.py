"""What a vision-language model is made of, as plain numbers: all that a closed form of its cost needs.

Nothing here imports torch or knows a model family; whoever knows a family fills the records. Widths are numbers of
features, never of bytes.
"""

from dataclasses import dataclass
from typing import Literal

TokenGroup = Literal["all", "text", "visual"]

Grid = tuple[int, int]
"""Rows and columns of patches of one image."""


@dataclass(frozen=True)
class Projection:
    """A matrix that meets every token `calls` times.

    Attributes:
        name: what the family calls it.
        inputs, outputs: widths.
        calls: how often a token is multiplied by it.
    """

    name: str
    inputs: int
    outputs: int
    calls: int = 1


@dataclass(frozen=True)
class ScoreProduct:
    """A product of every query with every key beside the attention itself, such as an index that picks keys."""

    name: str
    heads: int
    width: int


@dataclass(frozen=True)
class AttentionShape:
    """Self-attention of one layer.

    Attributes:
        heads, key_heads: query heads, and heads that keys and values have (equal: MHA; fewer: GQA; one: MQA).
        key_width, value_width: of one head.
        projections: from the hidden states to queries, keys and values, and back.
        window: how many keys a query sees at most; None for all.
        scores: further products of queries and keys.
        module: what the family calls the module.
        cache_width: numbers that the cache holds per token; 0 where the keys of another layer are read.
    """

    heads: int
    key_heads: int
    key_width: int
    value_width: int
    projections: tuple[Projection, ...]
    window: int | None = None
    scores: tuple[ScoreProduct, ...] = ()
    module: str = "self_attn"
    cache_width: int = 0


@dataclass(frozen=True)
class FeedForwardShape:
    """A feed-forward network: up and down, and a third matrix for the gate if `gated`."""

    inputs: int
    intermediate: int
    gated: bool


@dataclass(frozen=True)
class ExpertsShape:
    """A mixture of experts.

    Attributes:
        router: from a token to one number per expert.
        expert: one expert.
        per_token: how many experts a token is sent to.
        group: which tokens these experts take.
    """

    router: Projection
    expert: FeedForwardShape
    per_token: int
    group: TokenGroup = "all"


@dataclass(frozen=True)
class LayerShape:
    """One layer of a decoder or of a vision tower.

    Attributes:
        hidden: width of its input.
        attention: its self-attention.
        feed_forward: the dense networks that every token passes; a shared expert is one of them.
        experts: its mixtures of experts.
        extras: every other product of a token with a matrix.
    """

    hidden: int
    attention: AttentionShape
    feed_forward: tuple[FeedForwardShape, ...] = ()
    experts: tuple[ExpertsShape, ...] = ()
    extras: tuple[Projection, ...] = ()


@dataclass(frozen=True)
class PoolingHeadShape:
    """SigLIP's head: one learned query attends to all patches, then a network of two matrices."""

    hidden: int
    intermediate: int


@dataclass(frozen=True)
class TowerShape:
    """A vision tower that is one stack of layers over patches.

    Attributes:
        patch: the embedding of one patch; a convolution whose stride is its kernel is such a product.
        layers: first layer first.
        extra_tokens: tokens beside the patches, per image, such as a class token.
        window_side: patches along one side of the square window of the layers in `windowed`.
        windowed: numbers of the layers in which a patch sees its window alone.
        live_layers: how many layers have an output that is used; None for all. The others run for nothing.
        head: a pooling head, which no language model reads: it runs for nothing.
        joined: whether the pictures of a call, padded to one size for the patch embedding, become one sequence, where a
            mask hides from every patch those of other pictures.
    """

    patch: Projection
    layers: tuple[LayerShape, ...]
    extra_tokens: int = 0
    window_side: int = 0
    windowed: frozenset[int] = frozenset()
    live_layers: int | None = None
    head: PoolingHeadShape | None = None
    joined: bool = False

    @property
    def dead_layers(self) -> tuple[int, ...]:
        """Numbers of the layers that run although nothing reads what they compute."""
        live = len(self.layers) if self.live_layers is None else self.live_layers
        return tuple(range(live, len(self.layers)))


@dataclass(frozen=True)
class ProjectorShape:
    """What makes visual tokens of patches: `projections` meet every visual token.

    Attributes:
        merge: patches that become one visual token.
        extra_rows: rows per image beside its visual tokens that pass the projector too.
        modules: where its matrices are, from the model.
    """

    projections: tuple[Projection, ...]
    merge: int = 1
    extra_rows: int = 0
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelShape:
    """A vision-language model.

    Attributes:
        layers: of the decoder, first layer first.
        vocabulary: outputs of the language head. A head whose weights are tied to the embedding costs the same.
        tower, projector: None where no record fits; such a part is counted by running it on a prompt.
        not_described: why a part is None, by part.
    """

    layers: tuple[LayerShape, ...]
    vocabulary: int
    tower: TowerShape | None = None
    projector: ProjectorShape | None = None
    not_described: tuple[tuple[str, str], ...] = ()

    @property
    def hidden(self) -> int:
        """Width of the decoder."""
        return self.layers[0].hidden
