"""The model of this experiment, its prefill, the published search loop, and what each costs in multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

BEFORE, AFTER, LAYERS, IMAGE, HEAD = 35, 40, 32, 3, 64


def intermediate(hidden: int) -> int:
    """Return the width of the gated FFN, in LLaVA-1.5-7B's ratio to the hidden size."""
    return hidden * 43 // 16


def build(hidden: int) -> Any:
    """Return a LLaVA-shaped model with random weights; its tower is tiny because it is not run."""
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    text = LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate(hidden), num_hidden_layers=LAYERS,
        num_attention_heads=hidden // HEAD, vocab_size=2048, max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    return LlavaForConditionalGeneration(config).eval()


def make_inputs(model: Any, visual: int) -> dict[str, Any]:
    """Return the arguments of a prefill whose image is encoded already."""
    ids = torch.randint(10, 2000, (1, BEFORE + visual + AFTER))
    ids[:, BEFORE : BEFORE + visual] = IMAGE
    features = BaseModelOutputWithPooling(pooler_output=(torch.randn(visual, model.config.text_config.hidden_size),))
    return {"input_ids": ids, "mm_encoder_outputs": {"image": features}}


@torch.inference_mode()
def prefill(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Run the plain model, without cache, with the logits of the last position alone."""
    logits: torch.Tensor = model(**inputs, use_cache=False, logits_to_keep=1).logits
    return logits[:, -1]


@torch.inference_mode()
def published_loop(model: Any, inputs: dict[str, Any], layers: Sequence[int]) -> list[torch.Tensor]:
    """Search as VTW's released code does: the reference, then all layers again for every candidate layer."""
    decoder, ids = model.model.language_model, inputs["input_ids"]
    places = ids == IMAGE
    keep = (~places[0]).nonzero()[:, 0]
    embeds = decoder.embed_tokens(ids)
    embeds = embeds.masked_scatter(places[..., None], inputs["mm_encoder_outputs"]["image"].pooler_output[0])
    found = [_run(model, decoder, embeds, None, keep)]
    return found + [_run(model, decoder, embeds, layer, keep) for layer in layers]


def _run(model: Any, decoder: nn.Module, hidden: torch.Tensor, cut: int | None, keep: torch.Tensor) -> torch.Tensor:
    stack: Any = decoder
    positions = torch.arange(hidden.shape[1])[None]
    rotary = stack.rotary_emb(hidden, position_ids=positions)
    for number, layer in enumerate(stack.layers):
        if number == cut:
            hidden, positions = hidden[:, keep], positions[:, keep]
            rotary = tuple(part[:, keep] for part in rotary)
        hidden = layer(hidden, attention_mask=None, position_ids=positions, position_embeddings=rotary)
    logits: torch.Tensor = model.lm_head(stack.norm(hidden[:, -1:]))[:, -1]
    return logits


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one decoder layer: `linear` per token, `pair` per query and key that it sees.

    `causal_half` counts a token's own past alone; else the full square is counted, as fvcore does.
    """

    hidden: int
    causal_half: bool

    def layer(self, new: int, before: int = 0) -> float:
        """Return the macs of `new` tokens that also see `before` earlier ones."""
        linear = 4 * self.hidden**2 + 3 * self.hidden * intermediate(self.hidden)
        pairs = new * (before + (new + 1) / 2) if self.causal_half else new * (before + new)
        return new * linear + 2 * pairs * self.hidden

    def prefill(self, tokens: int) -> float:
        """Return the macs of a full prefill."""
        return LAYERS * self.layer(tokens)

    def one_pass(self, visual: int, branch_tokens: Sequence[Sequence[int]]) -> float:
        """Return the macs of the reference and of branches; per layer, how many tokens each branch at work has."""
        total = self.prefill(BEFORE + visual + AFTER)
        return total + sum(self.layer(tokens, BEFORE) for layer in branch_tokens for tokens in layer)
