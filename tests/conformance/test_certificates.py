"""A family without an adapter of its own runs only with a certificate of the very model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from vtw_search import Policy, PolicySet, apply_policy, load_policy, save_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance import certify
from vtw_search.errors import ModelError, PolicyFileError
from vtw_search.policies import Certificate, read_certificate
from vtw_search.runtime import make_certificate, record_certificate

pytestmark = pytest.mark.usefixtures("few_steps")

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


def forged(model: Any) -> Certificate:
    """Return a certificate that says of a model what nobody has checked."""
    return make_certificate(model, find_adapter(model).facts(model).possible_layers, {}, None)


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Count how often the decoder runs."""
    calls: list[int] = []
    handle = find_adapter(model).decoder_layers(model)[0].register_forward_pre_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def test_a_planted_certificate_of_a_model_that_does_not_conform_is_found_out_by_the_first_prompt() -> None:
    family = find("llama4")
    model = family.build()
    policies, inputs = policies_with(model, forged(model)), family.inputs([("small",)])
    with apply_policy(model, policies), pytest.raises(ModelError, match="certificate of a policy file must be right"):
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    with pytest.raises(ModelError, match="removing equals masking"), apply_policy(model, policies):
        pass  # once is enough
    with apply_policy(family.build(), PolicySet(model=policies.model, certificate=policies.certificate)):
        pass  # keep-all claims nothing


def test_the_claim_of_a_file_is_checked_once_per_model_and_layer(model: Any, certificate: Certificate) -> None:
    policies = policies_with(model, certificate)
    with counted(model) as calls:
        first = run(model, policies)
        assert len(calls) == 3 + 2
        assert run(model, policies).equal(first)
        assert len(calls) == 3 + 2 + 3
        with apply_policy(model, policies) as active:
            active.use(Policy.withdraw(5))
            model.generate(**find(NAME).inputs([("small",)]), max_new_tokens=3, do_sample=False)
        assert len(calls) == 3 + 2 + 3 + 3 + 2
    record_certificate(model, certificate)
    assert run(model, policies).equal(first)


@pytest.mark.parametrize("call", ["forward", "generate", "marked"])
def test_the_check_leaves_no_trace_in_the_call_that_it_precedes(
    model: Any, certificate: Certificate, call: str
) -> None:
    inputs: Any = find(NAME).inputs([("small",)])
    other = find(NAME).build()
    record_certificate(other, certificate)
    found = []
    for each in (model, other):
        with apply_policy(each, policies_with(each, certificate)) as active, torch.no_grad():
            if call == "generate":
                found.append(each.generate(**inputs, max_new_tokens=3, do_sample=False))
                continue
            given = dict(inputs)
            if call == "marked":
                active.mark_visual(find_adapter(each).visual_mask(each, inputs))
                given = {"inputs_embeds": each.get_input_embeddings()(inputs["input_ids"])}
            found += [each(**given).logits, *active.visual_left]
    half = len(found) // 2
    assert all(one.equal(two) for one, two in zip(found[:half], found[half:], strict=True))


def test_threads_that_do_not_check_see_nothing_of_the_check(model: Any, certificate: Certificate) -> None:
    inputs: Any = find(NAME).inputs([("small",)])
    text = {"input_ids": torch.arange(3, 9)[None]}
    with torch.no_grad():
        expected = model(**text).logits
        with apply_policy(model, policies_with(model, certificate)):
            seen: list[torch.Tensor] = []

            def other(*_: Any) -> None:
                """Call the model in another thread while the check runs in this one."""
                if not seen:
                    seen.append(expected)
                    thread = threading.Thread(target=lambda: seen.append(ask()))
                    thread.start()
                    thread.join()

            def ask() -> torch.Tensor:
                with torch.no_grad():
                    logits: torch.Tensor = model(**text).logits
                return logits

            find_adapter(model).decoder_layers(model)[2].register_forward_pre_hook(other)
            model(**inputs)
    assert len(seen) == 2
    assert seen[1].equal(expected)


def test_a_later_turn_alone_cannot_confirm_a_claim(model: Any, certificate: Certificate) -> None:
    text, image = {"input_ids": torch.arange(3, 9)[None]}, find(NAME).inputs([("small",)])
    cache = model(**text, use_cache=True).past_key_values
    with apply_policy(model, policies_with(model, certificate)), pytest.raises(ModelError, match="from its beginning"):
        model(**{**image, "attention_mask": None}, past_key_values=cache)


def test_a_deployment_may_insist_on_a_certificate_of_its_own(model: Any, certificate: Certificate) -> None:
    policies = policies_with(model, forged(model))
    with counted(model) as calls, apply_policy(model, policies, certificate=certificate):
        model.generate(**find(NAME).inputs([("small",)]), max_new_tokens=3, do_sample=False)
    assert len(calls) == 3
    for change, message in [(FAILED, "removing equals masking"), *STALE]:
        own = certificate.model_copy(update=change)
        with pytest.raises(ModelError, match=message), apply_policy(model, policies, certificate=own):
            pass
    record_certificate(model, certificate.model_copy(update=FAILED))
    with pytest.raises(ModelError, match="removing equals"), apply_policy(model, policies, certificate=certificate):
        pass  # what was found here counts more


def test_an_own_certificate_is_read_from_a_file(model: Any, certificate: Certificate, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(certificate.model_dump_json())
    with apply_policy(model, Policy.withdraw(2), certificate=read_certificate(path)):
        pass
    path.write_text(path.read_text()[:-9])
    with pytest.raises(PolicyFileError, match="check has to run again"):
        read_certificate(path)
