"""Packed training sequences: one image prefix, then all its questions, each blind to the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

IGNORED = -100


@dataclass
class Packed:
    """One packed batch.

    Attributes:
        input_ids, labels, position_ids: (N, T); labels are `IGNORED` except on answer tokens, already shifted
            (labels[t] is the token that follows t).
        mask: (N, 1, T, T), true where a token may look.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor


class Packer:
    """Turns (question, answer) lists into packed tensors with the processor's own prompt format."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, image_tokens: int) -> None:
        self.tokenizer = tokenizer
        image = tokenizer.convert_tokens_to_ids("<image>")
        head, tail = (self._ids(text) for text in ("USER: ", "\n"))
        self.prefix = [tokenizer.bos_token_id, *head, *[image] * image_tokens, *tail]
        self._cache: dict[str, list[int]] = {}

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _cached_ids(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self._ids(text)
        return self._cache[text]

    def pack(self, questions: list[list[tuple[str, str]]]) -> Packed:
        """Pack the questions of each image into one row."""
        rows = [self._row(pairs) for pairs in questions]
        length = max(len(ids) for ids, *_ in rows)
        pad = self.tokenizer.pad_token_id
        columns = [
            torch.tensor([values + [fill] * (length - len(values)) for values in column])
            for column, fill in zip(zip(*rows, strict=True), (pad, IGNORED, 0, -1), strict=True)
        ]
        input_ids, labels, position_ids, segments = columns
        same = (segments[:, :, None] == segments[:, None, :]) | (segments[:, None, :] == 0)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        return Packed(input_ids, labels, position_ids, (same & causal)[:, None])

    def _row(self, pairs: list[tuple[str, str]]) -> tuple[list[int], list[int], list[int], list[int]]:
        ids, start = list(self.prefix), len(self.prefix)
        labels, positions, segments = [IGNORED] * start, list(range(start)), [0] * start
        for segment, (question, answer) in enumerate(pairs, start=1):
            asked = self._cached_ids(f"{question}\nASSISTANT:")
            answered = [*self._cached_ids(answer), self.tokenizer.eos_token_id]
            ids += asked + answered
            labels += [IGNORED] * (len(asked) - 1) + answered + [IGNORED]
            positions += range(start, start + len(asked) + len(answered))
            segments += [segment] * (len(asked) + len(answered))
        return ids, labels, positions, segments
