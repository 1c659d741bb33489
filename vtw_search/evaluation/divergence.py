"""KL divergence between the reference's and a candidate's next-token distributions."""

from __future__ import annotations

import torch


def kl_divergence(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return KL(left || right) in nats for logits of shape (..., V), as (...), computed in float32.

    A token that `left` gives no probability contributes nothing, as in the limit.
    """
    log_left, log_right = (logits.float().log_softmax(dim=-1) for logits in (left, right))
    weight = log_left.exp()
    terms = torch.where(weight > 0, weight * (log_left - log_right), 0.0)
    return terms.sum(dim=-1).clamp_min(0.0)
