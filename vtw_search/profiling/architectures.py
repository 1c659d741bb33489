"""Models of a known architecture without their weights: on the meta device to count, random to time."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig

from vtw_search.errors import ModelError, unknown_name


def architecture_names() -> list[str]:
    """Return the names of the shipped configurations."""
    files = resources.files("vtw_search.architectures").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def load_architecture(name: str) -> PreTrainedConfig:
    """Return the configuration called `name`, or the one in the folder or JSON file `name`; nothing is downloaded.

    Raises:
        UnknownNameError: it is neither shipped nor a file.
        ModelError: the file is not the configuration of a known model type.
    """
    path = Path(name)
    file = path / "config.json" if path.is_dir() else path
    if name in architecture_names():
        text = resources.files("vtw_search.architectures").joinpath(f"{name}.json").read_text()
    elif file.is_file():
        text = file.read_text()
    else:
        raise unknown_name("architecture", name, architecture_names())
    try:
        content = json.loads(text)
        config: PreTrainedConfig = CONFIG_MAPPING[content.pop("model_type")].from_dict(content)
    except (ValueError, KeyError, TypeError) as error:
        remedy = f"{error}; give the config.json of an image-text-to-text model"
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
