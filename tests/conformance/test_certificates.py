"""A family without an adapter of its own runs only with a certificate of the very model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from vtw_search import Policy, PolicySet, apply_policy, load_policy, save_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance import certify
from vtw_search.errors import ModelError
from vtw_search.policies import Certificate
from vtw_search.runtime import record_certificate

NAME = "aya_vision"
STALE = [
    ({"config_digest": "0" * 16}, "config_digest"),
    ({"transformers": "4.0.0"}, "transformers 4.0.0"),
    ({"torch": "1.0"}, "torch 1.0"),
    ({"attention": "eager"}, "attention eager"),
    ({"layers": (1, 2)}, r"every layer K that the model allows, got 'none for \[3, 4, 5, 6, 7\]'"),
    ({"layers": ()}, r"every layer K that the model allows, got 'none for \[1, 2"),
]
FAILED = {"failed": "2 removing equals masking: deviation 0.3"}


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return certify(find(NAME).build(), probes=family_probes(find(NAME)))


@pytest.fixture
def model() -> Any:
    return find(NAME).build()


def run(model: Any, policies: Any) -> Any:
    with apply_policy(model, policies):
        return model.generate(**find(NAME).inputs([("small",)]), max_new_tokens=3, do_sample=False)


def policies_with(model: Any, certificate: Certificate | None) -> PolicySet:
    fingerprint = find_adapter(model).facts(model).fingerprint
    return PolicySet(model=fingerprint, default=Policy.withdraw(2), certificate=certificate)


@pytest.mark.parametrize("given", ["a policy", "a policy file without one"])
def test_without_a_certificate_the_error_names_the_call_that_makes_one(model: Any, given: str) -> None:
    policies = Policy.withdraw(2) if given == "a policy" else policies_with(model, None)
    with pytest.raises(ModelError, match=r"certify\(model, processor\)"):
        run(model, policies)


def test_a_certificate_says_what_was_checked(certificate: Certificate) -> None:
    assert certificate.failed is None
    assert certificate.layers == (1, 2, 3, 4, 5, 6, 7)
    assert (certificate.attention, certificate.dtype) == ("sdpa", "float32")
    assert len(certificate.deviations) == 7


def test_a_policy_file_carries_the_certificate(model: Any, certificate: Certificate, tmp_path: Path) -> None:
    record_certificate(model, certificate)
    answer = run(model, Policy.withdraw(2))
    policies = policies_with(model, certificate)
    loaded = load_policy(save_policy(policies, tmp_path / "policy.json"))
    assert loaded == policies
    fresh = find(NAME).build()
    assert run(fresh, loaded).equal(answer)
    with pytest.raises(ModelError, match="needs a certificate"):
        run(fresh, Policy.withdraw(2))  # a file vouches for its own policies


@pytest.mark.parametrize("change,message", [(FAILED, "removing equals masking"), *STALE])
def test_a_certificate_that_failed_or_is_for_something_else_is_refused(
    model: Any, certificate: Certificate, change: dict[str, Any], message: str
) -> None:
    changed = certificate.model_copy(update=change)
    with pytest.raises(ModelError, match=message):
        run(model, policies_with(model, changed))
    record_certificate(model, changed)
    with pytest.raises(ModelError, match=message):
        run(model, Policy.withdraw(2))


@pytest.mark.parametrize("change", [FAILED, *(change for change, _ in STALE)])
def test_a_bad_certificate_of_a_file_does_not_overrule_what_was_found_here(
    model: Any, certificate: Certificate, change: dict[str, Any]
) -> None:
    record_certificate(model, certificate)
    answer = run(model, Policy.withdraw(2))
    assert run(model, policies_with(model, certificate.model_copy(update=change))).equal(answer)
    assert run(model, Policy.withdraw(2)).equal(answer)


@pytest.mark.parametrize("change", [change for change, _ in STALE])
def test_a_good_certificate_of_a_file_counts_where_the_one_found_here_is_out_of_date(
    model: Any, certificate: Certificate, change: dict[str, Any]
) -> None:
    record_certificate(model, certificate)
    answer = run(model, Policy.withdraw(2))
    record_certificate(model, certificate.model_copy(update=change))
    assert run(model, policies_with(model, certificate)).equal(answer)


def test_a_good_certificate_of_a_file_does_not_overrule_a_failure_found_here(
    model: Any, certificate: Certificate
) -> None:
    record_certificate(model, certificate.model_copy(update=FAILED))
    with pytest.raises(ModelError, match="removing equals masking"):
        run(model, policies_with(model, certificate))


def test_a_certificate_of_some_layers_is_not_enough(model: Any) -> None:
    certificate = certify(model, probes=family_probes(find(NAME)), layers=[2])
    assert certificate.layers == (2,)
    assert certificate.failed is None
    with pytest.raises(ModelError, match="every layer K"):
        run(model, Policy.withdraw(2))


def test_a_certificate_from_before_layers_were_recorded_can_be_read_and_is_refused(
    model: Any, certificate: Certificate
) -> None:
    old = certificate.model_dump(exclude={"layers", "attention", "dtype"})
    with pytest.raises(ModelError, match="attention unknown"):
        run(model, policies_with(model, Certificate.model_validate(old)))


def test_the_number_format_may_be_another_one(model: Any, certificate: Certificate) -> None:
    policies = policies_with(model, certificate)
    half = find(NAME).build(dtype=torch.bfloat16)
    inputs: Any = find(NAME).inputs([("small",)])
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    with apply_policy(half, policies), torch.no_grad():
        assert half(**inputs).logits.shape[1] < inputs["input_ids"].shape[1]


def test_a_model_that_fails_the_check_is_refused_with_the_contract_that_failed() -> None:
    family = find("llama4")
    model = family.build()
    certificate = certify(model, probes=family_probes(family), layers=[2])
    assert certificate.failed is not None
    with pytest.raises(ModelError, match="removing equals masking"), apply_policy(model, Policy.withdraw(2)):
        pass
