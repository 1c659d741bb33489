"""A family without an adapter of its own runs only with a certificate of the very model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from vtw_search import Policy, PolicySet, apply_policy, load_policy, save_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance import certify
from vtw_search.errors import ModelError

NAME = "aya_vision"


@pytest.fixture
def model() -> Any:
    return find(NAME).build()


def run(model: Any, policies: Any) -> Any:
    with apply_policy(model, policies):
        return model.generate(**find(NAME).inputs([("small",)]), max_new_tokens=3, do_sample=False)


def test_without_a_certificate_the_error_names_the_call_that_makes_one(model: Any) -> None:
    with pytest.raises(ModelError, match=r"certify\(model, processor\)"):
        run(model, Policy.withdraw(2))


def test_a_policy_file_carries_the_certificate(model: Any, tmp_path: Path) -> None:
    certificate = certify(model, probes=family_probes(find(NAME)), layers=[2])
    assert certificate.failed is None
    answer = run(model, Policy.withdraw(2))
    fingerprint = find_adapter(model).facts(model).fingerprint
    policies = PolicySet(model=fingerprint, default=Policy.withdraw(2), certificate=certificate)
    loaded = load_policy(save_policy(policies, tmp_path / "policy.json"))
    assert loaded == policies
    fresh = find(NAME).build()
    assert run(fresh, loaded).equal(answer)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"failed": "2 removing equals masking: deviation 0.3"}, "removing equals masking"),
        ({"config_digest": "0" * 16}, "config_digest"),
        ({"transformers": "4.0.0"}, "transformers 4.0.0"),
        ({"torch": "1.0"}, "torch 1.0"),
    ],
)
def test_a_certificate_that_failed_or_is_for_something_else_is_refused(
    model: Any, change: dict[str, str], message: str
) -> None:
    certificate = certify(model, probes=family_probes(find(NAME)), layers=[2]).model_copy(update=change)
    fingerprint = find_adapter(model).facts(model).fingerprint
    policies = PolicySet(model=fingerprint, default=Policy.withdraw(2), certificate=certificate)
    with pytest.raises(ModelError, match=message):
        run(find(NAME).build(), policies)


def test_a_model_that_fails_the_check_is_refused_with_the_contract_that_failed() -> None:
    family = find("llama4")
    model = family.build()
    certificate = certify(model, probes=family_probes(family), layers=[2])
    assert certificate.failed is not None
    with pytest.raises(ModelError, match="removing equals masking"), apply_policy(model, Policy.withdraw(2)):
        pass
