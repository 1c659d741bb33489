"""Logits processors: one that forces answers, and those that generate itself would apply, without generating."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList


class Forced(LogitsProcessor):
    """Makes generate follow given answers, (B, N) tokens, and notes what it would have chosen itself."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens, self.choices = tokens, list[torch.Tensor]()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = len(self.choices)
        self.choices.append(scores.argmax(dim=-1))
        return torch.full_like(scores, float("-inf")).scatter(1, self.tokens[:, step, None], 0.0)


def greedy_choices(
    model: Any, prompt: torch.Tensor, answer: torch.Tensor, logits: torch.Tensor, max_new_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what greedy generation would choose at each position of an answer that it is forced along.

    Args:
        model: with its generation config.
        prompt: (B, T) prompt ids.
        answer: (B, N) forced tokens.
        logits: (B, N, V) the model's logits at the answer's positions.
        max_new_tokens: as generate is called with.

    Returns:
        (B, N) tokens, and (B, N) how far the best processed logit lies above the second.
    """
    processors = _processors(model, prompt, max_new_tokens)
    chosen, margins = [], []
    for step in range(answer.shape[1]):
        scores = logits[:, step].float()
        if processors:
            so_far: Any = torch.cat([prompt, answer[:, :step]], dim=1)
            scores = processors(so_far, scores)
        best = scores.topk(2, dim=-1)
        chosen.append(best.indices[:, 0])
        margins.append(best.values[:, 0] - best.values[:, 1])
    return torch.stack(chosen, dim=1), torch.stack(margins, dim=1)


def _processors(model: Any, prompt: torch.Tensor, max_new_tokens: int) -> LogitsProcessorList:
    # transformers has no public way to ask for them; a test holds the result against generate's own scores.
    config, _ = model._prepare_generation_config(None, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
    model._prepare_special_tokens(config, True, device=prompt.device)
    processors: LogitsProcessorList = model._get_logits_processor(
        generation_config=config,
        input_ids_seq_length=prompt.shape[1],
        encoder_input_ids=prompt,
        prefix_allowed_tokens_fn=None,
        logits_processor=LogitsProcessorList(),
        device=prompt.device,
        model_kwargs={},
    )
    return processors
