"""The noise floor on the shipped model, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vtw_search.errors import ConfigError, EvidenceError
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import load_pools
from vtw_search.search.limits import Limits
from vtw_search.search.noise import check_noise, measure_noise, noise_summary

LIMITS = Limits(0.01, "answer", "reference_candidate")


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


def test_every_variation_is_measured_and_the_model_is_left_as_it_was(loaded: LoadedModel) -> None:
    before = loaded.model.config._attn_implementation
    samples, asked = load_pools("digits_read", {})["calibration"][:6], ["batch", "attention", "dtype"]
    dtypes: list[str] = []

    def reload(dtype: str) -> LoadedModel:
        dtypes.append(dtype)
        return load_model("reference", device="cpu", dtype=dtype)

    noise = measure_noise(loaded, samples, 8, 4, asked, reload)
    assert dtypes == ["bfloat16"]
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
    summary = noise_summary(measure_noise(loaded, samples, 8, 4, ["dtype"], lambda _: other), LIMITS)
    assert summary["dtype"]["mean_nats"] > 1e-4


def test_a_variation_that_cannot_run_is_an_error_that_says_how_to_go_on(loaded: LoadedModel) -> None:
    def full(_: str) -> LoadedModel:
        raise MemoryError

    samples = load_pools("digits_read", {})["calibration"][:2]
    with pytest.raises(EvidenceError, match=r"another dtype.*out of memory.*noise.variations"):
        measure_noise(loaded, samples, 8, 4, ["dtype"], full)
    broken = load_model("reference", device="cpu")
    broken.model.get_output_embeddings().weight.data[:] = float("nan")
    with pytest.raises(EvidenceError, match="not finite"):
        measure_noise(loaded, samples, 8, 4, ["dtype"], lambda _: broken)


NOISE = {"batch": {"mean_nats": 1e-6}, "dtype": {"mean_nats": 2e-3}}


def test_a_limit_below_the_floor_is_refused_with_its_cause() -> None:
    check_noise("t", LIMITS, NOISE)
    check_noise("t", replace(LIMITS, kl_nats=None), NOISE)
    check_noise("t", replace(LIMITS, kl_nats=1e-9), {})
    with pytest.raises(ConfigError, match=r"noise floor of 0.002 nats, which another dtype causes.*0.001"):
        check_noise("t", replace(LIMITS, kl_nats=0.001), NOISE)
    with pytest.raises(ConfigError, match="noise floor"):
        check_noise("t", replace(LIMITS, slices={"digits": {"kl_nats": 0.001}}), NOISE)


def test_the_summary_has_mean_tail_and_maximum() -> None:
    noise = {"batch": {"kl_answer_nats": [0.0] * 19 + [0.2]}}
    [row] = noise_summary(noise, LIMITS).values()
    assert row["mean_nats"] == pytest.approx(0.01)
    assert (row["max_nats"], row["cap_nats"], row["share_above_cap"]) == (0.2, pytest.approx(0.1), 0.05)
