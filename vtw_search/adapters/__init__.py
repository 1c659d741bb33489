"""The only code that knows a model family: one file and one line of this table each."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.ernie4_5_vl_moe import Ernie4_5VLMoeAdapter
from vtw_search.adapters.gemma3 import Gemma3Adapter
from vtw_search.adapters.gemma3n import Gemma3nAdapter
from vtw_search.adapters.generic import GenericAdapter
from vtw_search.adapters.glm4v import Glm4vAdapter
from vtw_search.adapters.granite4_vision import Granite4VisionAdapter
from vtw_search.adapters.idefics import Idefics3Adapter, SmolVLMAdapter
from vtw_search.adapters.internvl import InternVLAdapter
from vtw_search.adapters.kosmos2_5 import Kosmos2_5Adapter
from vtw_search.adapters.llava import LlavaAdapter
from vtw_search.adapters.llava_next import LlavaNextAdapter, LlavaNextVideoAdapter
from vtw_search.adapters.llava_onevision import LlavaOnevisionAdapter
from vtw_search.adapters.mistral3 import Mistral3Adapter
from vtw_search.adapters.molmo2 import Molmo2Adapter
from vtw_search.adapters.muse_glimmer import MuseGlimmerAdapter
from vtw_search.adapters.paligemma import PaliGemmaAdapter
from vtw_search.adapters.parts import LayerArguments, VisionTower
from vtw_search.adapters.prompts import check_prompt
from vtw_search.adapters.qwen2_vl import Qwen2_5_VLAdapter, Qwen2VLAdapter
from vtw_search.adapters.qwen3_vl import Qwen3VLAdapter
from vtw_search.adapters.shieldgemma2 import ShieldGemma2Adapter
from vtw_search.adapters.step3p7 import Step3p7Adapter
from vtw_search.adapters.structure import (
    LayerCache,
    keeps_keys_and_values,
    layer_caches,
    layer_kinds,
    most_positions,
    patched_by,
    structural_problem,
)
from vtw_search.adapters.towers import has_known_call, reads_sizes, tower_inputs, tower_layers
from vtw_search.adapters.video_llama_3 import VideoLlama3Adapter
from vtw_search.adapters.video_llava import VideoLlavaAdapter
from vtw_search.adapters.vipllava import VipLlavaAdapter
from vtw_search.errors import ModelError

# `model_type` of the config -> adapter.
ADAPTERS: dict[str, type[Adapter]] = {
    "ernie4_5_vl_moe": Ernie4_5VLMoeAdapter,
    "gemma3": Gemma3Adapter,
    "gemma3n": Gemma3nAdapter,
    "glm46v": Glm4vAdapter,
    "glm4v": Glm4vAdapter,
    "glm4v_moe": Glm4vAdapter,
    "glm_ocr": Glm4vAdapter,
    "glmga": Glm4vAdapter,
    "granite4_vision": Granite4VisionAdapter,
    "idefics3": Idefics3Adapter,
    "internvl": InternVLAdapter,
    "kosmos-2.5": Kosmos2_5Adapter,
    "llava": LlavaAdapter,
    "llava_next": LlavaNextAdapter,
    "llava_next_video": LlavaNextVideoAdapter,
    "llava_onevision": LlavaOnevisionAdapter,
    "mistral3": Mistral3Adapter,
    "molmo2": Molmo2Adapter,
    "muse_glimmer": MuseGlimmerAdapter,
    "paligemma": PaliGemmaAdapter,
    "qwen2_5_vl": Qwen2_5_VLAdapter,
    "qwen2_vl": Qwen2VLAdapter,
    "qwen3_vl": Qwen3VLAdapter,
    "shieldgemma2": ShieldGemma2Adapter,
    "step3p7": Step3p7Adapter,
    "smolvlm": SmolVLMAdapter,
    "video_llama_3": VideoLlama3Adapter,
    "video_llava": VideoLlavaAdapter,
    "vipllava": VipLlavaAdapter,
}


def find_adapter(model: nn.Module) -> Adapter:
    """Return the adapter of `model`; families without a file of their own get the generic one.

    Raises:
        ModelError: the model's structure is not supported, or `model` wraps the model that is.
    """
    config: Any = getattr(model, "config", None)
    family: str = getattr(config, "model_type", "")
    class_name = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(family)
    if class_name is None:
        remedy = "any model that AutoModelForImageTextToText.from_pretrained loads can be tried"
        raise ModelError("the model must be an image-text-to-text model", value=_name(model), remedy=remedy)
    if type(model).__name__ != class_name:
        remedy = f"pass the {class_name} itself, as AutoModelForImageTextToText.from_pretrained returns it"
        raise ModelError(f"a {family} model must be unwrapped", value=_name(model), remedy=remedy)
    problem = structural_problem(config)
    if problem is not None:
        raise ModelError(
            f"a {family} model cannot run under a policy: {problem}", remedy="use a model whose decoder is a stack of "
            "self-attention layers over one sequence of text and image tokens",
        )  # fmt: skip
    adapter = ADAPTERS.get(family, GenericAdapter)()
    adapter.decoder_layers(model)
    return adapter


def _name(model: nn.Module) -> str:
    family = getattr(getattr(model, "config", None), "model_type", None)
    return f"{type(model).__name__} ({family})" if family else type(model).__name__


__all__ = [
    "ADAPTERS",
    "Adapter",
    "GenericAdapter",
    "LayerArguments",
    "LayerCache",
    "VisionTower",
    "check_prompt",
    "find_adapter",
    "has_known_call",
    "keeps_keys_and_values",
    "layer_caches",
    "layer_kinds",
    "most_positions",
    "patched_by",
    "reads_sizes",
    "structural_problem",
    "tower_inputs",
    "tower_layers",
]
