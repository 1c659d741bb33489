"""Prefill under a policy against the same layers on the short sequence.

`python -m experiments.runtime_overhead.run`
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from transformers import CLIPVisionConfig, DynamicCache, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from experiments.result import Claim, write_result
from vtw_search import Policy, apply_policy

BEFORE, VISUAL, AFTER, IMAGE = 35, 576, 40, 3
HIDDEN, LAYERS, PAIRS = 1024, 32, 10


def build() -> Any:
    """Return the model; its tower is tiny because it is not run."""
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    text = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=2752, num_hidden_layers=LAYERS, num_attention_heads=8, vocab_size=2048
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    ).eval()


def make_inputs() -> dict[str, Any]:
    """Return the arguments of a prefill whose image is encoded already."""
    ids = torch.randint(10, 2000, (1, BEFORE + VISUAL + AFTER))
    ids[:, BEFORE : BEFORE + VISUAL] = IMAGE
    features = BaseModelOutputWithPooling(pooler_output=(torch.randn(VISUAL, HIDDEN),))
    return {"input_ids": ids, "mm_encoder_outputs": {"image": features}, "logits_to_keep": 1, "use_cache": True}


@torch.inference_mode()
def ideal(model: Any, inputs: dict[str, Any], layer: int) -> torch.Tensor:
    """Withdraw by hand: cut once at `layer`, with nothing looked up, checked or hooked."""
    decoder, ids = model.model.language_model, inputs["input_ids"]
    hidden = decoder.embed_tokens(ids)
    places = (ids == IMAGE)[..., None]
    hidden = hidden.masked_scatter(places, inputs["mm_encoder_outputs"]["image"].pooler_output[0])
    positions = torch.arange(ids.shape[1])[None]
    rotary, cache = decoder.rotary_emb(hidden, position_ids=positions), DynamicCache(config=model.config)
    for number, module in enumerate(decoder.layers):
        if number == layer:
            keep = torch.cat([torch.arange(BEFORE), torch.arange(BEFORE + VISUAL, ids.shape[1])])
            hidden, positions = hidden[:, keep], positions[:, keep]
            rotary = tuple(part[:, keep] for part in rotary)
        hidden = module(
            hidden, attention_mask=None, position_ids=positions, past_key_values=cache, use_cache=True,
            position_embeddings=rotary,
        )  # fmt: skip
    return model.lm_head(decoder.norm(hidden)[:, -1:])


def ratios(first: Callable[[], object], second: Callable[[], object], label: str) -> list[float]:
    """Return second / first in seconds, in pairs whose order alternates."""
    first(), second()
    found = []
    for number in track(range(PAIRS), description=label):
        seconds = {}
        for each in (first, second) if number % 2 else (second, first):
            began = time.perf_counter()
            each()
            seconds[each] = time.perf_counter() - began
        found.append(seconds[second] / seconds[first])
    return found


def main() -> None:
    """Measure and write the claims."""
    model, inputs = build(), make_inputs()
    claims, details = [], {}
    for layer in (2, 16):
        expected = ideal(model, inputs, layer)
        with apply_policy(model, Policy.withdraw(layer)), torch.inference_mode():
            assert torch.allclose(model(**inputs).logits, expected, atol=1e-3), "both sides compute the same"
        values = measure(model, inputs, layer)
        claims.append(
            Claim(
                f"prefill under a policy / ideal withdrawal, K = {layer}",
                statistics.median(values),
                "",
                1.02,
                "at most",
            )
        )
        details[f"K = {layer}"] = {"ratios": values}
    same = ratios(lambda: ideal(model, inputs, 2), lambda: ideal(model, inputs, 2), "A/A")
    claims.append(Claim("ideal withdrawal / ideal withdrawal (noise of the measurement)", statistics.median(same), ""))
    details["A/A"] = {"ratios": same}
    write_result(Path(__file__).parent, 0, claims, details)


def measure(model: Any, inputs: dict[str, Any], layer: int) -> list[float]:
    """Return the ratios at one K. The hooks go on and off within the timed call, as a serving process may do it."""

    @torch.inference_mode()
    def under_policy() -> object:
        with apply_policy(model, Policy.withdraw(layer)):
            return model(**inputs)

    return ratios(lambda: ideal(model, inputs, layer), under_policy, f"K = {layer}")


if __name__ == "__main__":
    main()
