"""The adapter's answer to the first question: which tokens of a call are visual.

The six contracts of the runtime take it from the adapter, so that they would all hold for the wrong tokens.
"""

from __future__ import annotations

import torch

from vtw_search.conformance.bench import Bench, ContractError
from vtw_search.conformance.probes import Inputs, Probe
from vtw_search.runtime.capture import by_name, captured

DRAWS = 3


def visual_tokens_are_found(bench: Bench) -> float:
    """Other pixels under the same ids change what enters the decoder at the tokens that the adapter names, only there.

    The learned tokens that some families put at the ends of an image's rows do not change with its pixels; they are
    visual because their placeholder is that of the tokens that do. What enters is the input of layer 0, or, where
    features are added between layers alone, of the first layer that they are added at.
    """
    for probe in bench.probes:
        if any(value.is_floating_point() for value in probe.inputs.values()):
            _check(bench, probe)
    return 0.0


def _check(bench: Bench, probe: Probe) -> None:
    ids, changed = probe.inputs["input_ids"], _changed(bench, probe.inputs)
    named = bench.adapter.visual_mask(bench.model, probe.inputs)
    named = torch.zeros_like(changed) if named is None else named
    if not changed.any():
        raise ContractError(f"other pixels change nothing that enters the decoder on {probe.name}")
    missed = changed & ~named
    if missed.any():
        raise ContractError(f"the adapter misses {int(missed.sum())} visual tokens of {probe.name}")
    text = named & ~torch.isin(ids, ids[changed])
    if text.any():
        raise ContractError(f"the adapter takes {int(text.sum())} tokens of {probe.name} for visual that are not")


def _changed(bench: Bench, inputs: Inputs) -> torch.Tensor:
    """Return (B, T) bool, true where pixels change the input of the decoder.

    Several draws, because families that quantise an image may map other pixels to the same code.
    """
    generator = torch.Generator().manual_seed(0)
    before = _entering(bench, inputs)
    draws = [_entering(bench, _with_other_pixels(inputs, generator)) for _ in range(DRAWS)]
    different = torch.stack([(after != before).any(dim=-1) for after in draws])
    # Some families carry several streams of states, before the batch.
    return different.reshape(-1, *inputs["input_ids"].shape).any(dim=0)


def _entering(bench: Bench, inputs: Inputs) -> torch.Tensor:
    layer = bench.stack[bench.adapter.entry_layer(bench.model)]
    with captured([layer]) as calls:
        bench.logits(inputs)
    states: torch.Tensor = next(iter(by_name(layer, calls[0][0]).values()))
    return states


def _with_other_pixels(inputs: Inputs, generator: torch.Generator) -> dict[str, torch.Tensor]:
    def drawn(value: torch.Tensor) -> torch.Tensor:
        # Whole numbers stay: zeros are padding to some families, and places of patches stand beside their pixels.
        whole = value == value.round()
        stays = value == 0 if bool(whole.all()) else whole
        # Drawn on the CPU, where the generator is.
        return torch.where(stays, value, torch.randn(value.shape, generator=generator).to(value))

    return {name: drawn(value) if value.is_floating_point() else value for name, value in inputs.items()}
