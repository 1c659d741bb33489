"""How far two runs of a model are apart, and how far they may be."""

from __future__ import annotations

import torch

# Relative to the spread of the logits. Removing and masking are the same sums in another order, no more.
# In double precision transformers still computes position encodings and eager softmax in float32.
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def tolerance_of(dtype: torch.dtype) -> float:
    """Return the largest deviation that the small probes of the conformance check may have in a number format."""
    return TOLERANCES.get(dtype, 1e-5)


def deviation(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference relative to the spread of the expected logits; infinite when one is not finite.

    Logits that the model itself forbids, by a value near the lowest that there is, are held equal and left out.
    """
    if found.isnan().any() or expected.isnan().any():
        return float("inf")
    lowest = torch.finfo(expected.dtype).min / 2
    allowed = expected > lowest
    if not torch.equal(found > lowest, allowed):
        return float("inf")
    found, expected = found[allowed].double(), expected[allowed].double()
    result = float(((found - expected).abs().max() / expected.std()).item())
    return result if result == result else float("inf")
