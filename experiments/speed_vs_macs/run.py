"""Measured prefill ratio of a withdrawal over its macs ratio. `python -m experiments.speed_vs_macs.run`"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from experiments.result import Claim, write_result
from profilers.prefill import PrefillCost
from profilers.protocol import ProtocolSettings
from profilers.regimes import Regime
from profilers.stopwatch import Work, plain, stopwatch_of
from profilers.timing import Compared, compare
from vtw_search import Policy
from vtw_search.adapters import find_adapter
from vtw_search.files import write_text_atomically
from vtw_search.profiling.schedule import tokens_per_layer
from vtw_search.profiling.works import RegimeWorks
from vtw_search.runtime.capture import Call, captured

TEXT, VISUAL = 75, 576
BOUNDS = {8: 1.10, 16: 1.05, 24: 1.05}


def build(hidden: int, layers: int) -> Any:
    """Return the model; its tower is tiny because it is not run."""
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    text = LlamaConfig(
        hidden_size=hidden, intermediate_size=hidden * 43 // 16, num_hidden_layers=layers,
        num_attention_heads=hidden // 128, vocab_size=2048,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=3)).eval()


def versus(reference: Work, candidate: Work, settings: ProtocolSettings) -> Compared:
    """Return candidate against reference on the CPU."""
    return compare(reference, {"candidate": candidate}, stopwatch_of("cpu"), settings)["candidate"]


def measured(model: Any, batch: int, layer: int, settings: ProtocolSettings) -> dict[str, Any]:
    """Return time and macs of a withdrawal relative to the whole prefill."""
    adapter, regime = find_adapter(model), Regime(batch, VISUAL, TEXT, 1)
    works, layers = RegimeWorks(adapter, model, Policy.withdraw(layer), regime), len(adapter.decoder_layers(model))
    cost = PrefillCost(adapter.shape(model), TEXT, vision=0, projector=0)
    schedule = tokens_per_layer(Policy.withdraw(layer), RegimeWorks.layout_of(regime), layers)
    macs = cost.prefill_macs(schedule).total / cost.prefill_macs([VISUAL + TEXT] * layers).total
    found = versus(works.prefill(under_policy=False), works.prefill(under_policy=True), settings)
    return {
        "batch": batch,
        "layer": layer,
        "time_ratio": [found.ratio.value, found.ratio.low, found.ratio.high],
        "macs_ratio": macs,
        "time_over_macs": found.ratio.value / macs,
        "reference_ms": found.reference.values_ms,
        "candidate_ms": found.candidate.values_ms,
        "problems": found.problems,
    }


def where_the_rest_goes(model: Any, batch: int, settings: ProtocolSettings) -> dict[str, Any]:
    """Return the time of the layers on the short sequence over that on the long one, against their macs.

    Layers that lose more time than macs, and what lies outside of the layers, which no withdrawal saves, make up the
    whole difference. All layers are timed after one another, so that each meets its own cold weights as in a prefill.
    """
    adapter = find_adapter(model)
    stack, cost = adapter.decoder_layers(model), PrefillCost(adapter.shape(model), TEXT, vision=0, projector=0)
    calls = {tokens: _layer_call(adapter, model, batch, tokens) for tokens in (TEXT + VISUAL, TEXT)}
    long, short = (_layers_work(stack, call) for call in calls.values())
    found = versus(long, short, settings)
    works = RegimeWorks(adapter, model, Policy.keep_all(), Regime(batch, VISUAL, TEXT, 1))
    whole = versus(works.prefill(under_policy=False), long, settings)
    macs = [cost.prefill_macs([tokens] * len(stack)).decoder_layers[0] for tokens in calls]
    return {
        "batch": batch,
        "layers_time_ratio": found.ratio.value,
        "layers_macs_ratio": macs[1] / macs[0],
        "share_of_the_prefill_outside_its_layers": 1 - whole.ratio.value,
    }


def _layer_call(adapter: Any, model: Any, batch: int, tokens: int) -> Call:
    works = RegimeWorks(adapter, model, Policy.keep_all(), Regime(batch, tokens - 2, 2, 1))
    with captured(adapter.decoder_layers(model)) as calls, works.prefill(under_policy=False)() as prefill:
        prefill()
    args, kwargs = calls[0][0]
    return args, {**kwargs, "past_key_values": None, "use_cache": False}


def _layers_work(stack: Sequence[torch.nn.Module], call: Call) -> Work:
    args, kwargs = call

    @torch.inference_mode()
    def run() -> None:
        for layer in stack:
            layer(*args, **kwargs)

    return plain(run)


def kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured before, or measure and keep it, so that a run of an hour can be continued."""
    if not path.exists():
        write_text_atomically(path, json.dumps(measure()) + "\n")
    found: dict[str, Any] = json.loads(path.read_text())
    print(path.stem, found.get("time_over_macs", ""), flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(parsed.threads)
    settings = ProtocolSettings(min_rounds=parsed.rounds, min_seconds=0)
    model = build(parsed.hidden, parsed.layers)
    parts = parsed.out / "results" / "parts"
    rows = [
        kept(parts / f"K{layer}-batch{batch}.json", lambda: measured(model, batch, layer, settings))  # noqa: B023
        for batch in parsed.batch for layer in BOUNDS if layer < parsed.layers
    ]  # fmt: skip
    claims = [
        Claim(f"time ratio / macs ratio, K = {row['layer']}, batch {row['batch']}", row["time_over_macs"], "",
              BOUNDS[row["layer"]], "at most")
        for row in rows
    ]  # fmt: skip
    rest = [
        kept(parts / f"layers-batch{batch}.json", lambda: where_the_rest_goes(model, batch, settings))  # noqa: B023
        for batch in parsed.batch
    ]
    for each in rest:
        over = each["layers_time_ratio"] / each["layers_macs_ratio"]
        claims.append(Claim(f"time ratio / macs ratio of the layers alone, batch {each['batch']}", over, ""))
        outside = each["share_of_the_prefill_outside_its_layers"]
        claims.append(Claim(f"share of the prefill outside its layers, batch {each['batch']}", outside, ""))
    write_result(parsed.out, 0, claims, {"rows": rows, "where the rest goes": rest})


if __name__ == "__main__":
    main()
