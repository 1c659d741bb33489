"""Noise without a policy and under one, on the shipped model: its oracle, what it refuses and what it warns of."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vtw_search.errors import ConfigError, EvidenceError
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import Splits
from vtw_search.evaluation.tasks import Sample, load_pools
from vtw_search.policies import Policy
from vtw_search.recipes import find_recipe
from vtw_search.runtime import apply_policy
from vtw_search.search import variations
from vtw_search.search.limits import Limits
from vtw_search.search.noise import NoiseQuestion, check_noise, noise_summary, noise_warning
from vtw_search.search.study import Study
from vtw_search.search.study_settings import StudySettings
from vtw_search.search.variations import measure_noise

LIMITS = Limits(0.01, "answer", "reference_candidate")


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


def reloading(other: LoadedModel) -> Callable[[str], LoadedModel]:
    """Give `other` where another precision is asked for, and the model of the search where its own is."""
    return lambda dtype: load_model("reference", device="cpu") if dtype == "float32" else other


def test_every_variation_is_measured_and_the_model_is_left_as_it_was(loaded: LoadedModel) -> None:
    before = loaded.model.config._attn_implementation
    samples, asked = load_pools("digits_read", {})["calibration"][:6], ["batch", "attention", "dtype"]
    dtypes: list[str] = []

    def reload(dtype: str) -> LoadedModel:
        dtypes.append(dtype)
        return load_model("reference", device="cpu", dtype=dtype)

    noise = measure_noise(loaded, samples, 8, 4, asked, reload)
    assert dtypes == ["bfloat16", "float32"], "the first copy was freed, and loaded again"
    assert loaded.model.config._attn_implementation == before
    summary = noise_summary(noise, LIMITS)
    assert list(summary) == asked
    assert all(row["samples"] == 6 for row in summary.values())
    # float32 against itself differs by rounding alone; bfloat16 has 16 bits less.
    assert summary["batch"]["max_nats"] < 1e-5
    assert 0 < summary["attention"]["max_nats"] < 1e-5
    assert summary["attention"]["mean_nats"] < summary["dtype"]["mean_nats"] < 0.01


def test_another_model_is_seen(loaded: LoadedModel) -> None:
    """The instrument measures: with a weight doubled, the same loop finds a large divergence."""
    other = load_model("reference", device="cpu")
    other.model.get_output_embeddings().weight.data *= 2
    samples = load_pools("digits_read", {})["calibration"][:6]
    summary = noise_summary(measure_noise(loaded, samples, 8, 4, ["dtype"], reloading(other)), LIMITS)
    assert summary["dtype"]["mean_nats"] > 1e-4


def test_one_model_is_in_memory_at_a_time() -> None:
    loaded, made = load_model("reference", device="cpu"), list[weakref.ref[Any]]()

    def reload(dtype: str) -> LoadedModel:
        assert all(weight.device.type == "meta" for weight in loaded.model.parameters())
        assert [each() for each in made] == [None] * len(made), "the model of another precision is gone by now"
        other = load_model("reference", device="cpu", dtype=dtype)
        made.append(weakref.ref(other.model))
        return other

    samples = load_pools("digits_read", {})["calibration"][:2]
    measure_noise(loaded, samples, 8, 4, ["dtype"], reload)
    assert len(made) == 2


def test_a_variation_that_cannot_run_is_an_error_that_says_how_to_go_on() -> None:
    def full(dtype: str) -> LoadedModel:
        if dtype == "bfloat16":
            raise MemoryError
        return load_model("reference", device="cpu")

    loaded, samples = load_model("reference", device="cpu"), load_pools("digits_read", {})["calibration"][:2]
    before = [weight.clone() for weight in loaded.model.parameters()]
    with pytest.raises(EvidenceError, match=r"another dtype.*out of memory.*noise.variations"):
        measure_noise(loaded, samples, 8, 4, ["dtype"], full)
    assert all(map(torch.equal, before, loaded.model.parameters())), "the model is as it was"
    broken = load_model("reference", device="cpu")
    broken.model.get_output_embeddings().weight.data[:] = float("nan")
    with pytest.raises(EvidenceError, match="not finite"):
        measure_noise(loaded, samples, 8, 4, ["dtype"], reloading(broken))


NOISE = {
    "batch": {"mean_nats": 1e-6, "share_above_cap": 0.0},
    "dtype": {"mean_nats": 2e-3, "share_above_cap": 0.06},
}


def test_a_limit_below_the_floor_is_refused_with_its_cause() -> None:
    check_noise("t", LIMITS, NOISE)
    check_noise("t", replace(LIMITS, kl_nats=None), NOISE)
    check_noise("t", replace(LIMITS, kl_nats=1e-9), {})
    with pytest.raises(ConfigError, match=r"noise floor of 0.002 nats, which another dtype causes.*0.001"):
        check_noise("t", replace(LIMITS, kl_nats=0.001), NOISE)
    with pytest.raises(ConfigError, match="noise floor"):
        check_noise("t", replace(LIMITS, slices={"digits": {"kl_nats": 0.001}}), NOISE)
    check_noise("t", replace(LIMITS, kl_tail=0.06), NOISE)
    tail = replace(LIMITS, kl_nats=None, kl_cap_nats=0.01, kl_tail=0.05)
    with pytest.raises(ConfigError, match=r"limits.kl_tail of t .* 0.06 of the samples above the cap.*dtype"):
        check_noise("t", tail, NOISE)


def test_the_summary_has_mean_tail_and_maximum() -> None:
    noise = {"batch": {"kl_answer_nats": [0.0] * 19 + [0.2]}}
    [row] = noise_summary(noise, LIMITS).values()
    assert row["mean_nats"] == pytest.approx(0.01)
    assert (row["max_nats"], row["cap_nats"], row["share_above_cap"]) == (0.2, pytest.approx(0.1), 0.05)


def pruning(loaded: LoadedModel) -> Policy:
    policy = find_recipe("fastv").policy(loaded.facts, {"layer": 3, "keep": 0.5})
    assert policy is not None
    return policy


def run_alone(loaded: LoadedModel, sample: Sample, policy: Policy, answer: Sequence[int] | None) -> tuple[Any, Any]:
    """Tokens and logits of one sample under a policy; along an answer, which constrained search writes, if given."""
    inputs = loaded.adapter.encode(loaded.processor, [sample.prompt], [[image.open() for image in sample.images]])
    length = inputs["input_ids"].shape[1]
    forced = {} if answer is None else {"prefix_allowed_tokens_fn": lambda _, ids: [answer[len(ids) - length]]}
    with torch.inference_mode(), apply_policy(loaded.model, policy):
        output = loaded.model.generate(
            **inputs, do_sample=False, max_new_tokens=len(answer or range(8)), output_logits=True,
            return_dict_in_generate=True, **forced,
        )  # fmt: skip
    return output.sequences[0, length:].tolist(), torch.cat(output.logits).double().log_softmax(dim=-1)


@pytest.mark.parametrize("kind", ["withdraw", "prune"])
def test_the_noise_of_a_policy_is_what_two_runs_under_it_give(loaded: LoadedModel, kind: str) -> None:
    policy = Policy.withdraw(6) if kind == "withdraw" else pruning(loaded)
    samples = load_pools("digits_read", {})["calibration"][:3]
    other = load_model("reference", device="cpu", dtype="bfloat16")
    noise = measure_noise(loaded, samples, 8, 1, ["dtype"], reloading(other), policy)["dtype"]
    for number, sample in enumerate(samples):
        answer, _ = run_alone(loaded, sample, Policy.keep_all(), None)
        (_, own), (_, varied) = (run_alone(model, sample, policy, answer) for model in (loaded, other))
        there, back = ((p.exp() * (p - q)).sum(dim=-1) for p, q in ((own, varied), (varied, own)))
        by_hand = {
            "kl_answer_nats": there.mean(), "kl_first_nats": there[0], "kl_answer_reverse_nats": back.mean(),
            "kl_first_reverse_nats": back[0],
        }  # fmt: skip
        assert {name: values[number] for name, values in noise.items()} == pytest.approx(
            {name: float(value) for name, value in by_hand.items()}, rel=1e-3, abs=1e-6
        )


def test_scores_that_decide_what_stays_do_not_depend_on_the_batch(loaded: LoadedModel) -> None:
    samples = load_pools("digits_read", {})["calibration"][:7]
    noise = measure_noise(loaded, samples, 8, 4, ["batch", "attention"], lambda _: loaded, pruning(loaded))
    summary = noise_summary(noise, LIMITS)
    assert summary["batch"]["max_nats"] < 1e-5
    assert summary["attention"]["max_nats"] < 1e-5


@pytest.mark.parametrize("size,varied", [(1, [2, 1]), (2, [1, 1, 1]), (6, [3])])
def test_another_batch_has_another_size(
    loaded: LoadedModel, size: int, varied: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, follow = list[int](), variations._follow

    def noted(model: LoadedModel, samples: Sequence[Sample], *rest: Any) -> torch.Tensor:
        sizes.append(len(samples))
        return follow(model, samples, *rest)

    monkeypatch.setattr(variations, "_follow", noted)
    measure_noise(loaded, load_pools("digits_read", {})["calibration"][:3], 8, size, ["batch"], lambda _: loaded)
    assert sizes == varied


class Quiet:
    def start(self, description: str, total: int, done: int = 0) -> None: ...

    def advance(self, units: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


def test_a_policy_is_measured_once_and_keep_all_not_at_all(loaded: LoadedModel, tmp_path: Path) -> None:
    samples = load_pools("digits_read", {})["calibration"]
    splits = Splits({"calibration": tuple(samples[:2]), "selection": tuple(samples[2:3])})
    study, reloaded = Study(loaded, splits, StudySettings("t", 8, 10, 0, tmp_path), Quiet()), list[str]()

    def reload(dtype: str) -> LoadedModel:
        reloaded.append(dtype)
        return load_model("reference", device="cpu", dtype=dtype)

    question = NoiseQuestion(study, LIMITS, 32, ["dtype"], reload)
    assert question.of_policy(Policy.keep_all()) == {}
    assert reloaded == []
    floor, found = question.floor(), question.of_policy(Policy.withdraw(6))
    assert found["dtype"]["samples"] == 2
    assert found != floor
    assert (question.of_policy(Policy.withdraw(6)), question.floor()) == (found, floor)
    assert question.of_policy(Policy.withdraw(7)) != found
    assert reloaded == 3 * ["bfloat16", "float32"]
    assert replace(question, count=0).of_policy(Policy.withdraw(6)) == {}


def noisy(mean: float, share: float = 0.0) -> dict[str, dict[str, float]]:
    quiet = {"mean_nats": 1e-7, "cap_nats": 0.1, "share_above_cap": 0.0}
    return {"batch": quiet, "dtype": {**quiet, "mean_nats": mean, "share_above_cap": share}}


def test_noise_above_a_limit_is_a_warning_in_plain_words() -> None:
    assert noise_warning(LIMITS, {}) == ""
    assert noise_warning(LIMITS, noisy(0.01)) == ""
    assert noise_warning(replace(LIMITS, kl_nats=None), noisy(0.5)) == ""
    assert noise_warning(LIMITS, noisy(0.02)) == (
        "; WARNING: another dtype alone is 0.02 nats away on average, where 0.01 are allowed; the limits on KL are "
        "about the search's own setting and do not cover such a run"
    )
    sliced = replace(LIMITS, slices={"digits": {"kl_nats": 0.001}})
    assert "is 0.002 nats away on average, where 0.001 are allowed" in noise_warning(sliced, noisy(0.002))
    tail = replace(LIMITS, kl_tail=0.05)
    assert noise_warning(tail, noisy(0.001, share=0.05)) == ""
    assert "over 0.1 nats away on 12% of the samples, where 5% are allowed" in noise_warning(tail, noisy(0.001, 0.12))
