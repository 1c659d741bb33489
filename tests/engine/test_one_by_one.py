"""Sample records against an independent computation: whole sequences without cache, and free generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vtw_search import Policy, apply_policy
from vtw_search.engine import BatchEvaluator
from vtw_search.engine.one_by_one import CandidateError
from vtw_search.errors import ModelError
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import Sample, digits, easy_vqa

LAYER = 4
MAX_NEW_TOKENS = 6


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Prompts of different length, answers of one to four tokens."""
    shapes = list(easy_vqa.load_pool("yesno", "holdout"))[:6]
    return [*shapes, *list(digits.load_pool("holdout"))[:6]]


@pytest.fixture(scope="module")
def evaluator(loaded: LoadedModel, samples: list[Sample]) -> BatchEvaluator:
    return BatchEvaluator(loaded, samples, "holdout", 0, MAX_NEW_TOKENS)


def encode(loaded: LoadedModel, sample: Sample) -> dict[str, Any]:
    return loaded.adapter.encode(loaded.processor, [sample.prompt], [[image.open() for image in sample.images]])


@torch.no_grad()
def answer_tokens(loaded: LoadedModel, sample: Sample) -> torch.Tensor:
    """The greedy answer of one sample by itself, without cache."""
    inputs = encode(loaded, sample)
    tokens = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, use_cache=False)
    return tokens[:, inputs["input_ids"].shape[1] :]


@torch.no_grad()
def answer_logits(loaded: LoadedModel, sample: Sample, answer: torch.Tensor) -> torch.Tensor:
    """Logits at the answer's positions from one forward over prompt and answer."""
    inputs = encode(loaded, sample)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer[:, :-1]], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return loaded.model(**inputs, use_cache=False, logits_to_keep=answer.shape[1]).logits[0].double()


def kl(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left.softmax(-1) * (left.log_softmax(-1) - right.log_softmax(-1))).sum(-1)


def test_divergences_and_answers_equal_an_uncached_computation_one_by_one(
    loaded: LoadedModel, samples: list[Sample], evaluator: BatchEvaluator
) -> None:
    records = evaluator.records(Policy.withdraw(layer=LAYER))
    for sample, record in zip(samples, records, strict=True):
        reference = answer_tokens(loaded, sample)
        plain = answer_logits(loaded, sample, reference)
        with apply_policy(loaded.model, Policy.withdraw(layer=LAYER)):
            withdrawn = answer_logits(loaded, sample, reference)
            own = answer_tokens(loaded, sample)
        forward, backward = kl(plain, withdrawn), kl(withdrawn, plain)
        assert record.answer_tokens == reference.shape[1]
        found = (record.kl_answer_nats, record.kl_answer_sum_nats, record.kl_answer_reverse_nats,
                 record.kl_answer_reverse_sum_nats, record.kl_first_nats, record.kl_first_reverse_nats)  # fmt: skip
        expected = (forward.mean(), forward.sum(), backward.mean(), backward.sum(), forward[0], backward[0])
        assert found == pytest.approx([float(value) for value in expected], rel=1e-3, abs=1e-5)
        assert record.answer == loaded.processor.batch_decode(own, skip_special_tokens=True)[0].strip()
        assert record.agreement == (own.tolist() == reference.tolist())


def test_keep_all_takes_the_same_path_and_differs_by_nothing(evaluator: BatchEvaluator) -> None:
    for record in evaluator.records(Policy.keep_all()):
        assert record.kl_answer_sum_nats == record.kl_first_reverse_nats == 0.0
        assert record.agreement


def test_some_samples_disagree_so_that_both_ways_to_an_answer_are_tested(evaluator: BatchEvaluator) -> None:
    agreement = {
        record.agreement for layer in (1, 2, LAYER) for record in evaluator.records(Policy.withdraw(layer=layer))
    }
    assert agreement == {True, False}


@pytest.mark.parametrize(
    "error,reason",
    [(torch.OutOfMemoryError("cuda"), "out of memory"), (CandidateError("logits are not finite"), "finite")],
)
def test_a_candidate_that_fails_is_recorded(
    evaluator: BatchEvaluator, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(evaluator, "_follow_reference", fail)
    records = evaluator.records(Policy.withdraw(layer=LAYER))
    assert len(records) == len(evaluator.samples)
    assert all(reason in (record.failure or "") and record.score is None for record in records)


def test_a_candidate_with_nan_logits_is_recorded(evaluator: BatchEvaluator, loaded: LoadedModel) -> None:
    def poison(_: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        # Only the shortened sequence, so that the reference stays finite.
        return output * float("nan") if args[0].shape[1] < 60 else output

    handle = loaded.model.model.language_model.layers[-1].register_forward_hook(poison)
    try:
        records = evaluator.records(Policy.withdraw(layer=LAYER))
    finally:
        handle.remove()
    assert all(record.failure == "logits are not finite" for record in records)


def test_a_reference_that_is_not_finite_is_an_error(loaded: LoadedModel, samples: list[Sample]) -> None:
    handle = loaded.model.lm_head.register_forward_hook(lambda *arguments: arguments[2] * float("nan"))
    try:
        with pytest.raises(ModelError, match="not finite"):
            BatchEvaluator(loaded, samples[:2], "holdout", 0, MAX_NEW_TOKENS)
    finally:
        handle.remove()
