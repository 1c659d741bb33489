"""A policy run twice: as the search runs it, and with another dtype, another attention kernel or another batch."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LogitsProcessorList

from vtw_search.engine import BatchEvaluator, CandidateError, Forced, batches, failures_of_a_candidate
from vtw_search.errors import EvidenceError, ModelError
from vtw_search.evaluation.divergence import kl_divergence
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.records import KL_COLUMNS
from vtw_search.runtime.apply import run_under_policy

# Variation -> KL column -> one value per sample.
Noise = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Answered:
    """The reference's answer to one sample, (N,) tokens, and (N, V) a policy's logits along it, end token included."""

    tokens: torch.Tensor
    logits: torch.Tensor


def measure_noise(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    max_new_tokens: int,
    batch_size: int,
    variations: Sequence[str],
    reload: Callable[[str], LoadedModel],
    policy: Policy | None = None,
) -> Noise:
    """Run a policy again under each variation, along the answers of the unpruned model in the search's setting.

    Args:
        loaded: the model as the search uses it.
        samples: of the calibration split.
        max_new_tokens, batch_size: as the search uses them.
        variations: `batch` (reversed order, other size), `attention` (the other kernel), `dtype` (the other precision).
        reload: loads the model again in the given dtype.
        policy: whose noise; None is keep-all.

    Returns:
        KL(run in the search's setting || variation) and the other direction, over the answer and at its first token,
        per sample.

    Raises:
        EvidenceError: a variation cannot be run, or gives logits that are not finite.
    """
    policy = policy or Policy.keep_all()
    with _named("the search's own setting", policy):
        answers = _answered(loaded, samples, max_new_tokens, batch_size, policy)
    found = {}
    for variation in variations:
        size = (batch_size // 2 or 2) if variation == "batch" else batch_size
        order = list(range(len(samples)))[:: -1 if variation == "batch" else 1]
        with _named(f"another {variation}", policy), _varied(loaded, variation, reload) as other:
            found[variation] = _divergences(other, samples, answers, order, size, policy)
            del other  # before the model of the search is loaded again
    return found


@contextmanager
def _named(setting: str, policy: Policy) -> Iterator[None]:
    """Say what could not be run where, and how to go on."""
    try:
        with failures_of_a_candidate():
            yield
    except (CandidateError, ModelError, ValueError) as error:
        rule = f"{policy.label()} must run with {setting} for its noise to be measured: {error}"
        raise EvidenceError(rule, remedy="leave it out of noise.variations, or set noise.samples=0") from error


def _answered(
    loaded: LoadedModel, samples: Sequence[Sample], max_new_tokens: int, batch_size: int, policy: Policy
) -> list[Answered]:
    """Return the reference's answers with the logits that a policy has along them, run as the search runs."""
    found: list[Answered] = []
    for start, batch in batches(samples, batch_size):
        reference = BatchEvaluator(loaded, batch, "calibration", start, max_new_tokens).reference
        rows = zip(reference.tokens, reference.logits, reference.lengths.tolist(), strict=True)
        answers = [Answered(tokens[:length], logits[:length]) for tokens, logits, length in rows]
        if not policy.is_keep_all:
            own = _follow(loaded, batch, answers, policy)
            answers = [Answered(each.tokens, row[: len(each.tokens)]) for each, row in zip(answers, own, strict=True)]
        found += answers
    return found


@contextmanager
def _varied(loaded: LoadedModel, variation: str, reload: Callable[[str], LoadedModel]) -> Iterator[LoadedModel]:
    if variation == "dtype":
        with set_aside(loaded, reload):
            # No name for it here: the memory of one model is held at a time.
            yield reload("bfloat16" if loaded.identity["dtype"] == "float32" else "float32")
    elif variation == "attention":
        before = str(loaded.identity["attention"])
        loaded.model.set_attn_implementation("eager" if before == "sdpa" else "sdpa")
        try:
            yield loaded
        finally:
            loaded.model.set_attn_implementation(before)
    else:
        yield loaded


@contextmanager
def set_aside(loaded: LoadedModel, reload: Callable[[str], LoadedModel]) -> Iterator[None]:
    """Free the memory of a model's weights inside the `with` block; they are loaded again behind it.

    The model stays the same object, so that whatever is known of it still holds.
    """
    loaded.model.to("meta")
    try:
        yield
    finally:
        gc.collect()  # models hold themselves in cycles; two of them may not fit
        _take_tensors(loaded.model, reload(str(loaded.identity["dtype"])).model)


def _take_tensors(model: nn.Module, other: nn.Module) -> None:
    """Give a model the parameters and buffers of another of its kind; what is shared stays shared."""
    for own, its in zip(model.modules(), other.modules(), strict=True):
        own._parameters, own._buffers = its._parameters, its._buffers


def _divergences(
    loaded: LoadedModel, samples: Sequence[Sample], answers: Sequence[Answered], order: Sequence[int], size: int,
    policy: Policy,
) -> dict[str, list[float]]:  # fmt: skip
    rows: dict[int, dict[str, float]] = {}
    for start in range(0, len(order), size):
        members = order[start : start + size]
        logits = _follow(loaded, [samples[index] for index in members], [answers[index] for index in members], policy)
        for index, own in zip(members, logits, strict=True):
            rows[index] = _columns(answers[index].logits, own[: len(answers[index].tokens)])
    return {column: [rows[index][column] for index in range(len(samples))] for column in KL_COLUMNS.values()}


@torch.inference_mode()
def _follow(
    loaded: LoadedModel, samples: Sequence[Sample], answers: Sequence[Answered], policy: Policy
) -> torch.Tensor:
    """Return the (B, N, V) logits of a run under a policy that writes the reference's answers."""
    encoded = loaded.adapter.encode(
        loaded.processor,
        [sample.prompt for sample in samples],
        [[image.open() for image in sample.images] for sample in samples],
    )
    tokens = torch.nn.utils.rnn.pad_sequence([answer.tokens for answer in answers], batch_first=True)
    # A certificate is of one attention kernel and one loaded model, and this asks what the others do: `apply_policy`
    # without it.
    with run_under_policy(loaded.model, loaded.adapter, policy):
        output = loaded.model.generate(
            **{name: value.to(loaded.device) for name, value in encoded.items()},
            do_sample=False,
            num_beams=1,
            max_new_tokens=tokens.shape[1],
            logits_processor=LogitsProcessorList([Forced(tokens.to(loaded.device))]),
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits = torch.stack(output.logits, dim=1)
    if not torch.isfinite(logits).all():
        raise CandidateError("logits are not finite")
    return logits


def _columns(reference: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    pairs = {"reference_candidate": (reference, other), "candidate_reference": (other, reference)}
    tokens = {direction: kl_divergence(*pair) for direction, pair in pairs.items()}
    return {
        column: float(tokens[direction].mean() if position == "answer" else tokens[direction][0])
        for (position, direction), column in KL_COLUMNS.items()
    }
