"""Models that another library wrapped, quantised, patched or compiled: right, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from tests.conftest import make_inputs, make_tiny_llava
from vtw_search import Policy, apply_policy
from vtw_search.conformance import check_model
from vtw_search.errors import ModelError, RuntimeUseError


def test_a_peft_model_runs_with_its_adapters() -> None:
    peft = pytest.importorskip("peft", reason="peft is a development dependency")
    family = find("llava")
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    plain = family.build()
    inputs = family.inputs([("small",)])
    with apply_policy(plain, Policy.withdraw(2)), torch.no_grad():
        without = plain(**inputs).logits
    wrapped = peft.get_peft_model(family.build(), config).eval()
    with apply_policy(wrapped, Policy.withdraw(2)), torch.no_grad():
        assert not torch.allclose(wrapped(**inputs).logits, without)
        assert wrapped.generate(**inputs, max_new_tokens=3).shape[0] == 1
    report = check_model(wrapped, family_probes(family))
    assert report.passed, report.problem


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_quantised_model_computes_what_it_computes_with_masks() -> None:
    family = find("llava")
    quantised = torch.ao.quantization.quantize_dynamic(family.build(), {torch.nn.Linear}, dtype=torch.qint8)
    # Activations are quantised by the range of the whole batch, so that removed tokens change a little.
    report = check_model(quantised, family_probes(family), tolerance=0.2, layers=[2, 4])
    assert report.passed, report.problem


def test_a_patched_layer_is_refused() -> None:
    model: Any = make_tiny_llava()
    layer = model.model.language_model.layers[2]
    layer.forward = lambda *arguments, **named: arguments[0]
    with pytest.raises(RuntimeUseError, match="LlamaDecoderLayer.forward is replaced"):
        apply_policy(model, Policy.withdraw(2)).__enter__()


def test_a_patched_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = make_tiny_llava()

    def forward(self: Any, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        return hidden_states

    monkeypatch.setattr(type(model.model.language_model.layers[0]), "forward", forward)
    with pytest.raises(RuntimeUseError, match="replaced"):
        apply_policy(model, Policy.withdraw(2)).__enter__()


def test_compiled_models_are_refused() -> None:
    model: Any = make_tiny_llava()
    with pytest.raises(ModelError, match="unwrapped"):
        apply_policy(torch.compile(model), Policy.withdraw(2)).__enter__()
    model.compile()
    with pytest.raises(RuntimeUseError, match="compiled"):
        apply_policy(model, Policy.withdraw(2)).__enter__()


def test_an_exception_of_the_caller_leaves_no_hook() -> None:
    model: Any = make_tiny_llava()
    with pytest.raises(KeyError), apply_policy(model, Policy.withdraw(2)):
        model(**make_inputs((1,)))
        raise KeyError
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
