"""Sample records of a batch: the reference answers once, then every candidate is held against it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import LogitsProcessorList

from vtw_search.engine.failures import (
    CandidateError,
    Deadline,
    Watch,
    failures_of_a_candidate,
    out_of_memory_is_a_failure,
)
from vtw_search.engine.processors import Forced
from vtw_search.errors import ModelError
from vtw_search.evaluation.divergence import kl_divergence
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.records import OUT_OF_MEMORY, SampleRecord
from vtw_search.runtime import apply_policy
from vtw_search.versions import versions_of


@dataclass(frozen=True)
class Answers:
    """Greedy answers of a batch.

    Attributes:
        tokens: (B, N) generated tokens, padded behind the end token.
        lengths: (B,) tokens per answer, end token included.
        logits: (B, N, V) the model's own next-token logits at each step.
        texts: decoded, without special tokens.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    logits: torch.Tensor
    texts: tuple[str, ...]


class BatchEvaluator:
    """Evaluates candidates on one batch of samples; the reference pass runs when it is made.

    A candidate is run through `generate`, forced along the reference's answer: this gives its logits at every answer
    token from the very computation that deployment does. Where its own choice equals the reference's token at every
    step, that run is its greedy run, and its answer is the reference's; the other samples are generated freely.
    """

    def __init__(
        self, loaded: LoadedModel, samples: Sequence[Sample], split: str, start: int, max_new_tokens: int,
        timeout_s: float | None = None,
    ) -> None:  # fmt: skip
        self.loaded, self.samples, self.max_new_tokens = loaded, samples, max_new_tokens
        self.split, self.start, self.timeout_s = split, start, timeout_s
        self.deadline = Deadline(None)
        try:
            with out_of_memory_is_a_failure():
                self.inputs = self._encode(samples)
                self.reference = self._generate(self.inputs)
        except CandidateError as error:
            remedy = "this is the model without any policy; try model.dtype=float32, or a smaller batch_size"
            raise ModelError(
                f"the reference run must succeed: {error}", value=loaded.identity["model"], remedy=remedy
            ) from error

    def records(self, policy: Policy) -> list[SampleRecord]:
        """Evaluate one candidate; if it fails, every record says why. Out of memory, halves of the batch are tried."""
        self.deadline = Deadline(self.timeout_s)
        try:
            with failures_of_a_candidate(), apply_policy(self.loaded.model, policy) as active:
                logits, choices = self._follow_reference()
                left = visual_left(active.visual_left, len(self.samples))
                agreement = self._agreement(choices)
                texts = self._own_answers(agreement)
                divergences = self._divergences(logits, self.reference.logits)
        except CandidateError as error:
            failure = str(error)
        else:
            return [
                self._record(policy, row, divergences[row], bool(agreement[row]), texts[row], left[row])
                for row in range(len(self.samples))
            ]
        # Not while the error is handled: its traceback holds the tensors that there was no room for.
        if failure != OUT_OF_MEMORY or len(self.samples) == 1:
            return self._all_failed(policy, failure)
        middle = len(self.samples) // 2
        return self._part(0, middle).records(policy) + self._part(middle, len(self.samples)).records(policy)

    def _part(self, first: int, last: int) -> Self:
        """Return an evaluator of some of the samples, along the same answers."""
        part, answers = copy(self), self.reference
        longest = int(answers.lengths[first:last].max())
        part.samples, part.start = self.samples[first:last], self.start + first
        part.inputs = self._encode(part.samples)
        part.reference = Answers(
            answers.tokens[first:last, :longest], answers.lengths[first:last], answers.logits[first:last, :longest],
            answers.texts[first:last],
        )  # fmt: skip
        return part

    def _encode(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        prompts = [sample.prompt for sample in samples]
        images = [[image.open() for image in sample.images] for sample in samples]
        inputs = self.loaded.adapter.encode(self.loaded.processor, prompts, images)
        return {name: value.to(self.loaded.device) for name, value in inputs.items()}

    @torch.inference_mode()
    def _generate(self, inputs: dict[str, torch.Tensor], forced: Forced | None = None) -> Answers:
        output = self.loaded.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.max_new_tokens,
            logits_processor=LogitsProcessorList([Watch(self.deadline), *([forced] if forced else [])]),
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = output.sequences[:, inputs["input_ids"].shape[1] :]
        logits = torch.stack(output.logits, dim=1)
        if not torch.isfinite(logits).all():
            raise CandidateError("logits are not finite")
        texts = self.loaded.processor.batch_decode(tokens, skip_special_tokens=True)
        return Answers(tokens, self._lengths(tokens), logits, tuple(text.strip() for text in texts))

    def _lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """Count tokens up to and including the first end token; all of them for a model that has none."""
        ends = self.loaded.model.generation_config.eos_token_id
        known = ends if isinstance(ends, list) else [] if ends is None else [ends]
        end_ids = torch.tensor(known, dtype=tokens.dtype, device=tokens.device)
        ended = torch.isin(tokens, end_ids).int().cumsum(dim=1)
        return (ended == 0).sum(dim=1).add(1).clamp_max(tokens.shape[1])

    def _follow_reference(self) -> tuple[torch.Tensor, torch.Tensor]:
        forced = Forced(self.reference.tokens)
        answers = self._generate(self.inputs, forced)
        return answers.logits, torch.stack(forced.choices, dim=1)

    def _agreement(self, choices: torch.Tensor) -> torch.Tensor:
        same = (choices == self.reference.tokens) | ~self._answered()
        return same.all(dim=1)

    def _answered(self) -> torch.Tensor:
        """Return (B, N), true at answer tokens and false behind the end token."""
        steps = torch.arange(self.reference.tokens.shape[1], device=self.reference.tokens.device)
        return steps < self.reference.lengths[:, None]

    def _own_answers(self, agreement: torch.Tensor) -> list[str]:
        texts = list(self.reference.texts)
        differing = [row for row, agrees in enumerate(agreement.tolist()) if not agrees]
        if differing:
            answers = self._generate(self._encode([self.samples[row] for row in differing]))
            for row, text in zip(differing, answers.texts, strict=True):
                texts[row] = text
        return texts

    def _divergences(self, logits: torch.Tensor, reference: torch.Tensor) -> list[dict[str, Any]]:
        """Return the KL columns of every sample, for (B, N, V) logits."""
        weight = self._answered().float()
        columns = {}
        for suffix, pair in (("", (reference, logits)), ("_reverse", (logits, reference))):
            tokens = kl_divergence(*pair)
            total = torch.where(weight > 0, tokens, 0.0).sum(dim=1)
            columns[f"kl_answer{suffix}_nats"] = total / weight.sum(dim=1)
            columns[f"kl_answer{suffix}_sum_nats"] = total
            columns[f"kl_first{suffix}_nats"] = tokens[:, 0]
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def _record(
        self, policy: Policy, row: int, divergence: dict[str, Any], agreement: bool, text: str, left: list[int]
    ) -> SampleRecord:
        sample = self.samples[row]
        return SampleRecord(
            **self._key(policy, sample, row), **divergence, agreement=agreement, answer=text, score=sample.score(text),
            visual_left=json.dumps(left),
        )  # fmt: skip

    def _all_failed(self, policy: Policy, reason: str) -> list[SampleRecord]:
        return [self._failed(policy, sample, row, reason) for row, sample in enumerate(self.samples)]

    def _failed(self, policy: Policy, sample: Sample, row: int, reason: str) -> SampleRecord:
        missing: dict[str, Any] = dict.fromkeys(
            [name for name in SampleRecord.__dataclass_fields__ if name.startswith("kl_")]
        )
        return SampleRecord(
            **self._key(policy, sample, row), **missing, agreement=None, answer=None, score=None, failure=reason
        )

    def _key(self, policy: Policy, sample: Sample, row: int) -> dict[str, Any]:
        return {
            "policy": policy.digest(),
            "split": self.split,
            "position": self.start + row,
            "sample": sample.id,
            "cluster": sample.cluster,
            "slices": json.dumps(dict(sample.slices), sort_keys=True),
            "answer_tokens": int(self.reference.lengths[row]),
            "versions": json.dumps(versions_of(policy)),
        }


def visual_left(stages: Sequence[torch.Tensor], rows: int) -> list[list[int]]:
    """Return, per row, how many visual tokens are left after each stage, from one (B,) tensor per stage."""
    return torch.stack(list(stages), dim=1).tolist() if stages else [[] for _ in range(rows)]


def batches(samples: Sequence[Sample], size: int) -> Iterator[tuple[int, Sequence[Sample]]]:
    """Yield (position of the first sample, batch); fixed batches keep results equal from run to run."""
    for start in range(0, len(samples), size):
        yield start, samples[start : start + size]
