"""The noise floor: KL between two runs of the unpruned model that should not differ.

A limit on KL below what another dtype, another attention kernel or another batch causes says nothing about a policy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LogitsProcessorList

from vtw_search.engine import BatchEvaluator, CandidateError, Forced, batches, out_of_memory_is_a_failure
from vtw_search.errors import ConfigError, EvidenceError, ModelError
from vtw_search.evaluation.divergence import kl_divergence
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.tasks import Sample
from vtw_search.files import write_text_atomically
from vtw_search.records import KL_COLUMNS
from vtw_search.search.limits import Limits, QualityLimit
from vtw_search.search.study import SEARCH_SPLITS, Study

# Variation -> KL column -> one value per sample.
Noise = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Answered:
    """The reference's answer to one sample: (N,) tokens and (N, V) logits, end token included."""

    tokens: torch.Tensor
    logits: torch.Tensor


def measure_noise(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    max_new_tokens: int,
    batch_size: int,
    variations: Sequence[str],
    reload: Callable[[str], LoadedModel],
) -> Noise:
    """Run the unpruned model again under each variation, along its own answers.

    Args:
        loaded: the model as the search uses it.
        samples: of the calibration split.
        max_new_tokens, batch_size: as the search uses them.
        variations: `batch` (reversed order, other size), `attention` (the other kernel), `dtype` (the other precision).
        reload: loads the model again in the given dtype.

    Returns:
        KL(reference || variation) and the other direction, over the answer and at its first token, per sample.

    Raises:
        EvidenceError: a variation cannot be run, or gives logits that are not finite.
    """
    answers: list[Answered] = []
    for start, batch in batches(samples, batch_size):
        reference = BatchEvaluator(loaded, batch, "calibration", start, max_new_tokens).reference
        for row, length in enumerate(reference.lengths.tolist()):
            answers.append(Answered(reference.tokens[row, :length], reference.logits[row, :length]))
    found = {}
    for variation in variations:
        size = max(1, batch_size // 2) if variation == "batch" else batch_size
        order = list(range(len(samples)))[:: -1 if variation == "batch" else 1]
        try:
            with out_of_memory_is_a_failure(), _varied(loaded, variation, reload) as other:
                found[variation] = _divergences(other, samples, answers, order, size)
        except (CandidateError, ModelError, ValueError) as error:
            rule = f"the unpruned model must run with another {variation} for the noise floor: {error}"
            raise EvidenceError(rule, remedy="leave it out of noise.variations, or set noise.samples=0") from error
    return found


@contextmanager
def _varied(loaded: LoadedModel, variation: str, reload: Callable[[str], LoadedModel]) -> Iterator[LoadedModel]:
    if variation == "dtype":
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


def _divergences(
    loaded: LoadedModel, samples: Sequence[Sample], answers: Sequence[Answered], order: Sequence[int], size: int
) -> dict[str, list[float]]:
    rows: dict[int, dict[str, float]] = {}
    for start in range(0, len(order), size):
        members = order[start : start + size]
        logits = _follow(loaded, [samples[index] for index in members], [answers[index] for index in members])
        for index, own in zip(members, logits, strict=True):
            rows[index] = _columns(answers[index].logits, own[: len(answers[index].tokens)])
    return {column: [rows[index][column] for index in range(len(samples))] for column in KL_COLUMNS.values()}


@torch.inference_mode()
def _follow(loaded: LoadedModel, samples: Sequence[Sample], answers: Sequence[Answered]) -> torch.Tensor:
    """Return the (B, N, V) logits of a run that writes the reference's answers."""
    encoded = loaded.adapter.encode(
        loaded.processor,
        [sample.prompt for sample in samples],
        [[image.open() for image in sample.images] for sample in samples],
    )
    tokens = torch.nn.utils.rnn.pad_sequence([answer.tokens for answer in answers], batch_first=True)
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


def noise_floor(
    study: Study, limits: Limits, count: int, variations: Sequence[str], reload: Callable[[str], LoadedModel]
) -> dict[str, dict[str, float]]:
    """Measure the noise once per identity of a study, and hold the limits against it.

    Args:
        study: whose model and calibration samples are used.
        limits: of its task.
        count: at most so many samples; 0 measures nothing.
        variations, reload: as in `measure_noise`.

    Raises:
        ConfigError: the limit on KL is below the floor.
    """
    samples, settings = study.splits["calibration"][:count], study.settings
    if not samples or not variations:
        return {}
    key = hashlib.sha256(json.dumps([len(samples), *variations]).encode()).hexdigest()[:16]
    path = study.store(SEARCH_SPLITS).folder / f"noise-{key}.json"
    if not path.exists():
        noise = measure_noise(study.loaded, samples, settings.max_new_tokens, settings.batch_size, variations, reload)
        write_text_atomically(path, json.dumps(noise) + "\n")
    summary = noise_summary(json.loads(path.read_text()), limits)
    check_noise(settings.task, limits, summary)
    return summary


def noise_summary(noise: Noise, limits: Limits) -> dict[str, dict[str, float]]:
    """Return, per variation, mean, p95, maximum and P(KL > c) of the divergence that the limits bound."""
    column = KL_COLUMNS[limits.kl_position, limits.kl_direction]
    cap = limits.cap_nats(QualityLimit("kl_nats", "kl", limits.kl_nats or 0.0))
    return {variation: _summary(np.array(columns[column]), cap) for variation, columns in noise.items()}


def _summary(values: np.ndarray, cap: float) -> dict[str, float]:
    return {
        "samples": len(values),
        "mean_nats": float(values.mean()),
        "p95_nats": float(np.quantile(values, 0.95)),
        "max_nats": float(values.max()),
        "cap_nats": cap,
        "share_above_cap": float((values > cap).mean()),
    }


def check_noise(task: str, limits: Limits, summary: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse a limit on KL below the noise floor: the largest mean of any variation.

    Raises:
        ConfigError: the limit, a slice's included, is below the floor.
    """
    asked = [limits.kl_nats, *(bounds.get("kl_nats") for bounds in limits.slices.values())]
    bounds = [bound for bound in asked if bound is not None]
    if not summary or not bounds:
        return
    variation = max(summary, key=lambda name: summary[name]["mean_nats"])
    floor = summary[variation]["mean_nats"]
    if min(bounds) < floor:
        raise ConfigError(
            f"limits.kl_nats of {task} must not be below the noise floor of {floor:.3g} nats, which another "
            f"{variation} causes without any policy",
            value=min(bounds),
            remedy="raise the limit, or leave that variation out of noise.variations if it never happens to you",
        )
