"""Multiply-adds of a prefill and of a decode step, composed from token counts per decoder layer.

A policy decides how many tokens enter each layer; everything else of a prompt costs the same under every policy. So one
record of the model's shape, and one count of its vision part, give the cost of any policy by arithmetic alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from profilers.closed_form import Convention, decode_layer_macs, layer_macs
from profilers.shapes import LayerShape, ModelShape


@dataclass(frozen=True)
class PrefillMacs:
    """Multiply-adds of one prefill, by part; embeddings, norms and position encodings count as zero.

    Attributes:
        vision: macs of the vision tower.
        projector: macs of the projector.
        decoder_layers: macs of each decoder layer, first layer first.
        lm_head: macs of the output projection.
        other: macs of what is none of these and the same under every policy.
        scorers: macs that choosing the tokens costs at each layer; empty where nothing is scored.
    """

    vision: int
    projector: int
    decoder_layers: tuple[int, ...]
    lm_head: int
    other: int = 0
    scorers: tuple[int, ...] = ()

    @property
    def decoder(self) -> int:
        """Macs of all decoder layers."""
        return sum(self.decoder_layers)

    @property
    def scorer(self) -> int:
        """Macs of choosing tokens, over all layers."""
        return sum(self.scorers)

    @property
    def total(self) -> int:
        """Macs of all parts."""
        return self.vision + self.projector + self.decoder + self.lm_head + self.other + self.scorer

    @property
    def flops(self) -> int:
        """Floating-point operations: 2 x macs."""
        return 2 * self.total

    def as_dict(self) -> dict[str, int | list[int]]:
        """Macs of the parts and their sums, and the flops of all, ready for JSON."""
        return {
            "vision": self.vision,
            "projector": self.projector,
            "decoder_layers": list(self.decoder_layers),
            "lm_head": self.lm_head,
            "other": self.other,
            "scorer": self.scorer,
            "decoder": self.decoder,
            "total": self.total,
            "flops": self.flops,
        }


@dataclass(frozen=True)
class DecodeMacs:
    """Multiply-adds of one decode step, by part.

    Attributes:
        decoder_layers: macs of each decoder layer.
        lm_head: macs of the output projection.
    """

    decoder_layers: tuple[int, ...]
    lm_head: int

    @property
    def total(self) -> int:
        """Macs of all parts."""
        return sum(self.decoder_layers) + self.lm_head

    @property
    def flops(self) -> int:
        """Floating-point operations: 2 x macs."""
        return 2 * self.total


@dataclass(frozen=True)
class PrefillCost:
    """What every prefill of one prompt costs, and what it costs under a policy.

    Attributes:
        shape: the model.
        text_tokens: tokens of the prompt that are not visual, per row; they never leave.
        vision, projector, other: macs of the parts that no decoder policy changes.
        dead: macs, part of `vision`, that run although nothing reads what they compute.
        convention: which pairs of queries and keys count; see `profilers.closed_form`.
    """

    shape: ModelShape
    text_tokens: int
    vision: int
    projector: int
    other: int = 0
    dead: int = 0
    convention: Convention = "square"

    def prefill_macs(self, tokens_per_layer: Sequence[int], scorer_macs: Sequence[int] = ()) -> PrefillMacs:
        """Return the macs of one prefill with the language head at the last position.

        Args:
            tokens_per_layer: tokens that enter each decoder layer.
            scorer_macs: what choosing tokens costs in addition, per layer; empty for nothing.

        Raises:
            ValueError: there is not one count per layer, or a count is negative.
        """
        self._check(tokens_per_layer, scorer_macs)
        # Layers of one shape and one token count cost the same, and most layers of a model are alike.
        known: dict[tuple[LayerShape, int], int] = {}
        layers = []
        for place in zip(self.shape.layers, tokens_per_layer, strict=True):
            if place not in known:
                known[place] = self._layer(*place)
            layers.append(known[place])
        return PrefillMacs(self.vision, self.projector, tuple(layers), self._lm_head(), self.other, tuple(scorer_macs))

    def decode_macs(self, tokens_per_layer: Sequence[int], generated: int) -> DecodeMacs:
        """Return the macs of the step that reads `generated` answer tokens after a prefill.

        Args:
            tokens_per_layer: tokens of the prompt that each layer's cache holds.
            generated: answer tokens that every layer's cache holds too.
        """
        self._check(tokens_per_layer, ())
        layers = zip(self.shape.layers, tokens_per_layer, strict=True)
        return DecodeMacs(
            tuple(decode_layer_macs(layer, count + generated) for layer, count in layers), self._lm_head()
        )

    def _layer(self, layer: LayerShape, tokens: int) -> int:
        visual = max(0, tokens - self.text_tokens)
        return layer_macs(layer, tokens, visual=visual, convention=self.convention)

    def _lm_head(self) -> int:
        return self.shape.hidden * self.shape.vocabulary

    def _check(self, tokens_per_layer: Sequence[int], scorer_macs: Sequence[int]) -> None:
        layers = len(self.shape.layers)
        if len(tokens_per_layer) != layers or len(scorer_macs) not in (0, layers):
            raise ValueError(
                f"Every decoder layer needs one count; got {len(tokens_per_layer)} token counts and {len(scorer_macs)} "
                f"scorer counts for {layers} layers. Give one per layer, or no scorer counts."
            )
        if (least := min((*tokens_per_layer, *scorer_macs))) < 0:
            raise ValueError(f"A count must be at least 0; got {least}. Count the tokens that enter each layer.")
