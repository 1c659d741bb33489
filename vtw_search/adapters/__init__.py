"""The only code that knows a model family: one file and one line of this table each."""

from __future__ import annotations

from typing import Any

from torch import nn

from vtw_search.adapters.base import Adapter, LayerArguments, MacsModel, ModuleCall
from vtw_search.adapters.llava import LlavaAdapter
from vtw_search.errors import ModelError

# `model_type` of the config -> (class of the model, adapter).
ADAPTERS: dict[str, tuple[str, type[Adapter]]] = {
    "llava": ("LlavaForConditionalGeneration", LlavaAdapter),
}


def find_adapter(model: nn.Module) -> Adapter:
    """Return the adapter of `model`.

    Raises:
        ModelError: the family is not supported, or `model` wraps the model that is.
    """
    config: Any = getattr(model, "config", None)
    family = getattr(config, "model_type", None)
    if family not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise ModelError(
            "the model family must be supported", value=family or type(model).__name__, remedy=f"known: {known}"
        )
    class_name, adapter = ADAPTERS[family]
    if type(model).__name__ != class_name:
        remedy = f"pass the {class_name} itself, as AutoModelForImageTextToText.from_pretrained returns it"
        raise ModelError(f"a {family} model must be unwrapped", value=type(model).__name__, remedy=remedy)
    return adapter()


__all__ = ["ADAPTERS", "Adapter", "LayerArguments", "MacsModel", "ModuleCall", "find_adapter"]
