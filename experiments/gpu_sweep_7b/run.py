"""All withdrawal layers of a LLaVA-1.5-7B-shaped model on a GPU: time and memory of scoring 100 samples.

`python -m experiments.gpu_sweep_7b.run`
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from experiments.result import Claim, write_result
from vtw_search import Policy
from vtw_search.adapters import find_adapter
from vtw_search.engine.one_pass import Prompt, logits_of, run_one_pass
from vtw_search.evaluation.divergence import kl_divergence
from vtw_search.runtime import make_ready

BEFORE, AFTER, IMAGE, ANSWER = 35, 40, 3, 4
TARGET_SECONDS = 120.0


@dataclass(frozen=True)
class Size:
    """Shape of a decoder and how much is scored; the defaults are LLaVA-1.5-7B's."""

    hidden: int = 4096
    intermediate: int = 11008
    layers: int = 32
    heads: int = 32
    vocabulary: int = 32064
    samples: int = 100
    batch: int = 4


def build(size: Size, device: str, dtype: torch.dtype) -> Any:
    """Return the model with random weights; its tower is tiny because it is not run."""
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    text = LlamaConfig(
        hidden_size=size.hidden, intermediate_size=size.intermediate, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, vocab_size=size.vocabulary, max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
            return LlavaForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(default)


def make_prompt(model: Any, visual: int, batch: int) -> Prompt:
    """Return a batch of prompts with answers of four tokens behind them, whose images are encoded already."""
    length = BEFORE + visual + AFTER + ANSWER - 1
    ids = torch.randint(10, 1000, (batch, length), device=model.device)
    ids[:, BEFORE : BEFORE + visual] = IMAGE
    features = torch.randn(batch * visual, model.config.text_config.hidden_size, device=model.device, dtype=model.dtype)
    inputs = {"input_ids": ids, "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=(features,))}}
    padding = torch.zeros_like(ids, dtype=torch.bool)
    prompt = torch.arange(length, device=model.device).expand_as(ids) < length - ANSWER + 1
    return Prompt(inputs, ids == IMAGE, padding, prompt, ANSWER)


def sweep(model: Any, size: Size, visual: int) -> dict[str, float]:
    """Score every layer on all samples; returns seconds, the peak of memory in bytes, and a mean KL to look at."""
    adapter = find_adapter(model)
    facts = adapter.facts(model)
    stages = [(), *(make_ready(Policy.withdraw(layer), facts) for layer in range(1, size.layers))]
    on_gpu = model.device.type == "cuda"
    run_one_pass(model, adapter, make_prompt(model, visual, size.batch), stages)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    divergence, began = 0.0, time.perf_counter()
    for _ in track(range(0, size.samples, size.batch), description=f"{visual} visual tokens"):
        outcomes = run_one_pass(model, adapter, make_prompt(model, visual, size.batch), stages)
        outcomes.sort(key=lambda outcome: 0 not in outcome.candidates)
        reference: torch.Tensor | None = None
        for _outcome, logits in logits_of(model, adapter, outcomes, 11, 2**26):
            reference = logits if reference is None else reference
            divergence += float(kl_divergence(reference, logits).mean())
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    peak = float(torch.cuda.max_memory_allocated()) if on_gpu else float("nan")
    return {"seconds": seconds, "peak_memory_bytes": peak, "summed_kl_nats": divergence}


def run(size: Size, device: str, dtype: torch.dtype, visual: Sequence[int], folder: Path) -> list[Claim]:
    """Measure, write `results/result.json` in `folder` and return the claims."""
    model, claims, details = build(size, device, dtype), [], {}
    for count in visual:
        details[str(count)] = found = sweep(model, size, count)
        name = f"{size.layers - 1} layers, {size.samples} samples, {count} visual tokens"
        claims.append(Claim(f"{name}: time", found["seconds"], "s", TARGET_SECONDS, "at most"))
        claims.append(Claim(f"{name}: peak memory", found["peak_memory_bytes"] / 2**30, "GiB"))
    write_result(folder, 0, claims, {**details, "size": size.__dict__, "dtype": str(dtype), "device": device})
    return claims


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("this experiment needs a CUDA device; its code is tested small on CPU")
    run(Size(), "cuda", torch.bfloat16, (576, 2880), Path(__file__).parent)
