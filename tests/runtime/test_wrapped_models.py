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

pytestmark = pytest.mark.usefixtures("few_steps")


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


class Int8Linear(torch.nn.Module):
    """A linear layer that holds its weights in eight bits, as weight-only quantisation does."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(values, self.weight * self.scale, self.bias)


def test_a_quantised_model_passes_the_contracts() -> None:
    family = find("llava")
    model: Any = family.build()
    for layer in model.model.language_model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, child in list(block.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(block, name, Int8Linear(child))
    with torch.no_grad():
        changed = (
            model(**family.inputs([("small",)])).logits - family.build()(**family.inputs([("small",)])).logits
        ).std()
    assert changed > 1e-3
    report = check_model(model, family_probes(family))
    assert report.passed, report.problem


def test_a_model_that_accelerate_placed_passes_the_contracts() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate comes with peft, a development dependency")
    family = find("llava")
    placed = accelerate.dispatch_model(family.build(), device_map={"": "cpu"}, force_hooks=True)
    assert hasattr(placed, "_hf_hook")
    report = check_model(placed, family_probes(family))
    assert report.passed, report.problem


def test_a_patched_layer_is_refused() -> None:
    model: Any = make_tiny_llava()
    layer = model.model.language_model.layers[2]
    layer.forward = lambda *arguments, **named: arguments[0]
    with pytest.raises(RuntimeUseError, match=r"LlamaDecoderLayer\.forward is replaced"):
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
        raise KeyError(model(**make_inputs((1,))).logits.shape)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def decoder(model: Any) -> Any:
    return model.model.language_model


@pytest.mark.parametrize(
    "find_module,name",
    [
        (lambda model: decoder(model).layers[2].self_attn, "LlamaAttention"),
        (lambda model: decoder(model).layers[5].mlp.down_proj, "Linear"),
        (lambda model: model.model, "LlavaModel"),
        (decoder, "LlamaModel"),
    ],
)
def test_a_patched_inner_module_is_refused(find_module: Any, name: str) -> None:
    model: Any = make_tiny_llava()
    module = find_module(model)
    module.forward = lambda *arguments, **named: type(module).forward(module, *arguments, **named)
    with pytest.raises(RuntimeUseError, match=rf"{name}\.forward is replaced"):
        apply_policy(model, Policy.withdraw(2)).__enter__()


def test_a_patched_class_of_an_inner_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = make_tiny_llava()

    def forward(self: Any, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        return hidden_states, None

    monkeypatch.setattr(type(decoder(model).layers[0].self_attn), "forward", forward)
    with pytest.raises(RuntimeUseError, match=r"LlamaAttention\.forward is replaced"):
        apply_policy(model, Policy.withdraw(2)).__enter__()


def test_a_patched_vision_tower_is_not_the_runtimes_concern() -> None:
    model: Any = make_tiny_llava()
    tower = model.model.vision_tower
    tower.forward = lambda *arguments, **named: type(tower).forward(tower, *arguments, **named)
    with apply_policy(model, Policy.withdraw(2)), torch.no_grad():
        assert model(**make_inputs((1,))).logits.shape[1] < make_inputs((1,))["input_ids"].shape[1]


def test_a_patched_module_that_accelerate_placed_is_refused() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate comes with peft, a development dependency")
    model: Any = make_tiny_llava()
    attention = decoder(model).layers[2].self_attn
    attention.forward = lambda *arguments, **named: type(attention).forward(attention, *arguments, **named)
    placed = accelerate.dispatch_model(model, device_map={"": "cpu"}, force_hooks=True)
    accelerate.hooks.add_hook_to_module(attention, accelerate.hooks.ModelHook())
    with pytest.raises(RuntimeUseError, match=r"LlamaAttention\.forward is replaced"):
        apply_policy(placed, Policy.withdraw(2)).__enter__()
