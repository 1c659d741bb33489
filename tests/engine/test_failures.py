"""Candidates that run out of memory or time, or that the model cannot do: what is recorded, and what is tried first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vtw_search import Policy, Stage
from vtw_search.engine import BatchEvaluator, CandidateError, OnePassEvaluator, evaluator
from vtw_search.engine.failures import Deadline, failures_of_a_candidate
from vtw_search.errors import PolicyError
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import Sample, digits
from vtw_search.records import SampleRecord

POLICIES = [Policy.keep_all(), Policy.withdraw(2), Policy.withdraw(5), Policy.withdraw(9)]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Answers of one to four tokens, so that halves of the batch have answers of other lengths."""
    found = list(digits.load_pool("holdout"))[:12]
    return sorted(found, key=lambda sample: len(sample.answers[0]))


def assert_same(found: list[SampleRecord], expected: list[SampleRecord]) -> None:
    assert [record.failure for record in found] == [None] * len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.sample, one.position, one.answer, one.score) == (
            other.sample, other.position, other.answer, other.score,
        )  # fmt: skip
        assert one.kl_answer_nats == pytest.approx(other.kl_answer_nats, rel=1e-3, abs=1e-5)


def only_small_batches(monkeypatch: pytest.MonkeyPatch, largest: int, error: Callable[[], Exception]) -> list[int]:
    """Let runs along an answer have memory for `largest` samples; returns the sizes that were tried."""
    original, tried = BatchEvaluator._follow_reference, list[int]()

    def follow(self: BatchEvaluator) -> Any:
        tried.append(len(self.samples))
        if len(self.samples) > largest:
            raise error()
        return original(self)

    monkeypatch.setattr(BatchEvaluator, "_follow_reference", follow)
    return tried


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, MemoryError, lambda: RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_out_of_memory_halves_the_batch(
    loaded: LoadedModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:
    expected = BatchEvaluator(loaded, samples, "holdout", 100, 6).records(Policy.withdraw(5))
    tried = only_small_batches(monkeypatch, 3, error)
    found = BatchEvaluator(loaded, samples, "holdout", 100, 6).records(Policy.withdraw(5))
    assert_same(found, expected)
    assert tried == [12, 6, 3, 3, 6, 3, 3]


def test_out_of_memory_with_one_sample_is_recorded(
    loaded: LoadedModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    only_small_batches(monkeypatch, 0, torch.OutOfMemoryError)
    found = BatchEvaluator(loaded, samples[:3], "holdout", 0, 6).records(Policy.withdraw(5))
    assert [(record.failure, record.score) for record in found] == [("out of memory", None)] * 3


def test_the_one_pass_halves_its_candidates_then_the_batch(
    loaded: LoadedModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = OnePassEvaluator(loaded, samples, "holdout", 0, 6).records_of(POLICIES)
    original, sizes = evaluator.run_one_pass, list[int]()

    def pass_of(*arguments: Any) -> Any:
        sizes.append(len(arguments[3]) - 1)
        if any(len(stages) and stages[0].stage.layer == 5 for stages in arguments[3]):
            raise torch.OutOfMemoryError
        return original(*arguments)

    monkeypatch.setattr(evaluator, "run_one_pass", pass_of)
    tried = only_small_batches(monkeypatch, 6, torch.OutOfMemoryError)
    found = OnePassEvaluator(loaded, samples, "holdout", 0, 6).records_of(POLICIES)
    for policy in POLICIES:
        assert_same(found[policy], expected[policy])
    assert sizes == [4, 2, 2, 1, 1]
    assert tried == [12, 6, 6]


def test_logits_that_are_not_finite_are_recorded(
    loaded: LoadedModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = evaluator.logits_of

    def broken(*arguments: Any) -> Any:
        for outcome, logits in original(*arguments):
            yield outcome, torch.full_like(logits, torch.inf) if 2 in outcome.candidates else logits

    monkeypatch.setattr(evaluator, "logits_of", broken)
    found = OnePassEvaluator(loaded, samples, "holdout", 0, 6).records_of(POLICIES)
    assert {record.failure for record in found[POLICIES[1]]} == {"logits are not finite"}
    assert {record.failure for policy in (POLICIES[0], *POLICIES[2:]) for record in found[policy]} == {None}


def test_what_the_model_cannot_do_is_recorded_for_that_candidate_alone(
    loaded: LoadedModel, samples: list[Sample]
) -> None:
    beyond = Policy(stages=(Stage(layer=99, operator="withdraw"),))
    found = OnePassEvaluator(loaded, samples, "holdout", 0, 6).records_of([*POLICIES, beyond])
    assert {record.failure for policy in POLICIES for record in found[policy]} == {None}
    [failure] = {record.failure for record in found[beyond]}
    assert failure is not None
    assert failure.startswith("not supported: ")
    assert "99" in failure


def test_a_deadline() -> None:
    now = [0.0]
    deadline = Deadline(2, lambda: now[0])
    deadline.check()
    now[0] = 2.5
    with pytest.raises(CandidateError, match="timed out after 2 s"):
        deadline.check()
    Deadline(None, lambda: now[0]).check()


def test_a_slow_candidate_is_recorded_and_the_others_are_measured(
    loaded: LoadedModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumps whenever the slow candidate has forked, in the one pass and on its own."""
    now, original = [0.0], evaluator.run_one_pass

    def pass_of(*arguments: Any) -> Any:
        if any(len(stages) and stages[0].stage.layer == 5 for stages in arguments[3]):
            now[0] += 1000
        return original(*arguments)

    def follow(self: BatchEvaluator) -> Any:
        now[0] += 1000
        return follow_before(self)

    follow_before = BatchEvaluator._follow_reference
    monkeypatch.setattr(BatchEvaluator, "_follow_reference", follow)
    monkeypatch.setattr(evaluator, "run_one_pass", pass_of)
    for module in ("evaluator", "one_by_one"):
        monkeypatch.setattr(f"vtw_search.engine.{module}.Deadline", lambda seconds: Deadline(seconds, lambda: now[0]))
    found = OnePassEvaluator(loaded, samples, "holdout", 0, 6, 60.0).records_of(POLICIES)
    slow = Policy.withdraw(5)
    assert {record.failure for record in found[slow]} == {"timed out after 60 s"}
    assert {record.failure for policy in POLICIES if policy != slow for record in found[policy]} == {None}


def test_other_errors_are_no_failures_of_a_candidate() -> None:
    with pytest.raises(RuntimeError, match="a mistake"), failures_of_a_candidate():
        raise RuntimeError("a mistake")
    with pytest.raises(CandidateError, match="not supported: a rule"), failures_of_a_candidate():
        raise PolicyError("a rule")
