"""Generation without a cache, where every call repeats the whole sequence."""

from __future__ import annotations

import torch


class Uncached:
    """Tells generated tokens from the prompt where generate runs without a cache and repeats the whole sequence.

    What stays is chosen from the prompt alone, so that it is the same at every step.
    """

    def __init__(self) -> None:
        self.ids: torch.Tensor | None = None
        self.prompt = 0

    def prompt_length(self, ids: torch.Tensor | None, length: int) -> int:
        """Return how many of the tokens are the prompt: a call that only adds one token goes on with the last."""
        before, self.ids = self.ids, ids
        goes_on = (
            ids is not None and before is not None and ids.shape == (before.shape[0], before.shape[1] + 1)
        ) and torch.equal(ids[:, :-1], before)
        self.prompt = self.prompt if goes_on else length
        return self.prompt
