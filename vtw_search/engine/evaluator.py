"""Sample records of many candidates from one pass over a batch; `one_by_one` is its oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vtw_search.engine.failures import CandidateError, Deadline, failures_of_a_candidate
from vtw_search.engine.one_by_one import BatchEvaluator, visual_left
from vtw_search.engine.one_pass import Outcome, Prompt, logits_of, one_pass_problem, run_one_pass
from vtw_search.engine.processors import greedy_choices
from vtw_search.policies import Policy
from vtw_search.records import OUT_OF_MEMORY, SampleRecord
from vtw_search.runtime import apply_policy, make_ready

# At most so many logits are held at once: 64 Mi float32 values are 256 MiB.
_MOST_LOGITS = 64 * 2**20
# How far the logits of one call over prompt and answer may lie from those of generation, relative to their spread;
# beyond rounding in the model's precision, the model treats the two differently.
_FORCING_TOLERANCE = {torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.5, torch.float64: 1e-6}


class OnePassEvaluator(BatchEvaluator):
    """Scores candidates on one batch in one forward pass; only samples whose answer may differ are generated.

    Attributes:
        problem: why candidates have to be run one by one instead, or None.
        generated: per candidate scored by the pass, the rows whose answers were generated.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generated: dict[Policy, tuple[int, ...]] = {}
        self.problem = one_pass_problem(self.loaded.model, self.loaded.adapter) or self._placeholder_in_answer()

    def records_of(self, policies: Sequence[Policy]) -> dict[Policy, list[SampleRecord]]:
        """Return the records of all candidates.

        Where memory or time does not suffice, or the model cannot do one of them, half of them are tried at once.
        """
        if self.problem is not None:
            return {policy: self.records(policy) for policy in policies}
        try:
            with failures_of_a_candidate():
                return self._scored(policies)
        except CandidateError:
            if len(policies) == 1:
                return {policies[0]: self.records(policies[0])}
        half = len(policies) // 2
        return self.records_of(policies[:half]) | self.records_of(policies[half:])

    def _scored(self, policies: Sequence[Policy]) -> dict[Policy, list[SampleRecord]]:
        loaded, deadline = self.loaded, Deadline(self.timeout_s and self.timeout_s * len(policies))
        stages = [make_ready(policy, loaded.facts) for policy in policies]
        outcomes = run_one_pass(loaded.model, loaded.adapter, self._prompt(), [(), *stages], deadline.check)
        # The reference comes first, since the others are held against it.
        outcomes.sort(key=lambda outcome: 0 not in outcome.candidates)
        found: dict[Policy, list[SampleRecord]] = {}
        reference: torch.Tensor | None = None
        text_token = int(self.inputs["input_ids"][0, -1])
        for outcome, logits in logits_of(loaded.model, loaded.adapter, outcomes, text_token, _MOST_LOGITS):
            if reference is None:
                reference = logits
                self._check_forcing(reference)
                if self.problem is not None:
                    return self.records_of(policies)
            for number in outcome.candidates:
                if number:
                    found[policies[number - 1]] = self._records_from(policies[number - 1], outcome, logits, reference)
        return found

    def _records_from(
        self, policy: Policy, outcome: Outcome, logits: torch.Tensor, reference: torch.Tensor
    ) -> list[SampleRecord]:
        if not torch.isfinite(logits).all():
            return [
                self._failed(policy, sample, row, "logits are not finite") for row, sample in enumerate(self.samples)
            ]
        agreement, sure = self._certain_agreement(logits, reference)
        # Answers that differ, or are too close to tell, are generated.
        self.generated[policy] = rows = tuple((~(agreement & sure)).nonzero()[:, 0].tolist())
        self.deadline, failure = Deadline(self.timeout_s), None
        try:
            with failures_of_a_candidate(), apply_policy(self.loaded.model, policy):
                texts, agreement = self._answers(agreement, rows)
        except CandidateError as error:
            failure = str(error)
        if failure is not None:
            return self.records(policy) if failure == OUT_OF_MEMORY else self._all_failed(policy, failure)
        divergences = self._divergences(logits, reference)
        left = visual_left(outcome.visual_left, len(self.samples))
        return [
            self._record(policy, row, divergences[row], bool(agreement[row]), texts[row], left[row])
            for row in range(len(self.samples))
        ]

    def _certain_agreement(self, logits: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B,) whether a candidate's greedy answer is the reference's, and whether that is beyond rounding.

        The tolerance is measured: the two ways of computing the reference's own logits differ by some amount, and a
        choice whose margin is within twice that amount may come out either way.
        """
        choices, margins = greedy_choices(
            self.loaded.model, self.inputs["input_ids"], self.reference.tokens, logits, self.max_new_tokens
        )
        answered = self._answered()
        noise = (reference.float() - self.reference.logits.float()).abs().amax(dim=(1, 2))
        close = ((margins <= 2 * noise[:, None]) & answered).any(dim=1)
        return self._agreement(choices), ~close

    def _answers(self, agreement: torch.Tensor, rows: Sequence[int]) -> tuple[list[str], torch.Tensor]:
        """Return all answers and whether they agree, those of `rows` by generation."""
        texts = list(self.reference.texts)
        if rows:
            answers = self._generate(self._encode([self.samples[row] for row in rows]))
            agreement = agreement.clone()
            for place, row in enumerate(rows):
                texts[row] = answers.texts[place]
                agreement[row] = self._same(answers.tokens[place], row)
        return texts, agreement

    def _same(self, tokens: torch.Tensor, row: int) -> bool:
        length = int(self.reference.lengths[row])
        return bool(torch.equal(tokens[:length], self.reference.tokens[row, :length]))

    def _prompt(self) -> Prompt:
        """Return the prompts with the reference's answers behind them, the last token of which is not needed."""
        ids, answer = self.inputs["input_ids"], self.reference.tokens[:, :-1]
        inputs = self._with_answer(answer)
        visual = self.loaded.adapter.visual_mask(self.loaded.model, self.inputs)
        if visual is None:
            visual = torch.zeros_like(ids, dtype=torch.bool)
        real = self.inputs["attention_mask"].bool()
        behind = torch.zeros_like(answer, dtype=torch.bool)
        padding = torch.cat([~real, behind], dim=1)
        prompt = torch.cat([real, behind], dim=1)
        return Prompt(inputs, torch.cat([visual, behind], dim=1), padding, prompt, answer.shape[1] + 1)

    def _with_answer(self, answer: torch.Tensor) -> dict[str, Any]:
        extended: dict[str, Any] = {}
        for name, value in self.inputs.items():
            if name == "input_ids":
                extended[name] = torch.cat([value, answer], dim=1)
            elif value.shape == self.inputs["input_ids"].shape:
                fill = torch.full_like(answer, int(name == "attention_mask")).to(value)
                extended[name] = torch.cat([value, fill], dim=1)
            else:
                extended[name] = value
        return extended

    def _placeholder_in_answer(self) -> str | None:
        """Say when the reference's answer holds the token that stands for an image, which one call would ask for."""
        adapter, config = self.loaded.adapter, self.loaded.model.config
        placeholders = [
            adapter.placeholder(self.loaded.model, modality)
            for modality in adapter.modalities
            if any(getattr(config, name, None) is not None for name in modality.token_settings)
        ]
        tokens = self.reference.tokens
        found = torch.isin(tokens, torch.tensor(placeholders, dtype=tokens.dtype, device=tokens.device))
        return "an answer holds an image placeholder" if bool(found.any()) else None

    def _check_forcing(self, reference: torch.Tensor) -> None:
        """Notice when one call over prompt and answer does not give the logits of generation."""
        answered = self._answered()
        own, forced = self.reference.logits[answered].float(), reference[answered].float()
        if float((own - forced).abs().max()) > _FORCING_TOLERANCE[self.reference.logits.dtype] * float(own.std()):
            self.problem = "a call over prompt and answer does not give the logits of generation"
