"""Models of a known architecture without their weights: on the meta device to count, random to time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig

from profilers.memory import available_bytes
from vtw_search.errors import ModelError, unknown_name

_HUB_IDS = {
    "google/gemma-3-4b-it": "gemma3_4b",
    "OpenGVLab/InternVL3-8B-hf": "internvl3_8b",
    "llava-hf/llava-1.5-13b-hf": "llava_1_5_13b",
    "llava-hf/llava-1.5-7b-hf": "llava_1_5_7b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl_7b",
    "Qwen/Qwen3-VL-30B-A3B-Instruct": "qwen3_vl_30b_a3b",
}


def architecture_names() -> list[str]:
    """Return the names of the shipped configurations."""
    files = resources.files("vtw_search.architectures").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def load_architecture(name: str) -> PreTrainedConfig:
    """Return the configuration called `name`, or of the Hub id, folder or JSON file `name`; nothing is downloaded.

    Raises:
        UnknownNameError: it is neither shipped nor a file.
        ModelError: the file is not the configuration of a known model type.
    """
    path = Path(name)
    file = path / "config.json" if path.is_dir() else path
    if (shipped := _HUB_IDS.get(name, name)) in architecture_names():
        source: Any = resources.files("vtw_search.architectures").joinpath(f"{shipped}.json")
    elif file.is_file():
        source = file
    else:
        raise unknown_name("architecture", name, [*architecture_names(), *_HUB_IDS])
    try:
        content = json.loads(source.read_text())
        config: PreTrainedConfig = CONFIG_MAPPING[content.pop("model_type")].from_dict(content)
    except Exception as error:  # a model type's own code reads what somebody wrote
        reason = " ".join(f"{type(error).__name__} {error}".split())[:300]
        remedy = f"{reason}; give the config.json of an image-text-to-text model"
        raise ModelError("an architecture must be a transformers configuration", value=name, remedy=remedy) from error
    return config


def build_on_meta(config: PreTrainedConfig) -> Any:
    """Return the model on the meta device: shapes without memory.

    Raises:
        ModelError: transformers cannot build it there.
    """
    try:
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
    except (ValueError, RuntimeError, NotImplementedError) as error:
        remedy = f"{str(error).splitlines()[0]}; load it with weights and count it there"
        raise ModelError("a model must be buildable on meta", value=config.model_type, remedy=remedy) from error
    return model.eval()


def build_random(config: PreTrainedConfig, *, device: torch.device, dtype: torch.dtype, attention: str) -> Any:
    """Return the model with small random weights on its device, made there so that nothing is moved.

    Raises:
        ModelError: the device has not the memory that the weights need.
    """
    needed = sum(parameter.numel() for parameter in build_on_meta(config).parameters()) * dtype.itemsize
    if needed > (left := available_bytes(device)):
        remedy = f"{left / 2**30:.1f} GiB are left on {device}; count it with profile=macs, or use a larger device"
        raise ModelError("the weights must fit the device", value=f"{needed / 2**30:.1f} GiB", remedy=remedy)
    settings: Any = config
    settings._attn_implementation = attention
    with torch.device(device), _default_dtype(dtype):
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    return model.eval()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
