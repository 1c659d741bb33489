"""One file per family, named like its `model_type` with underscores; each defines `FAMILY`."""

from __future__ import annotations

import importlib
import pkgutil

from experiments.model_coverage.tiny import TinyFamily


def names() -> list[str]:
    """Return the model types that have a tiny family."""
    return sorted(find(module.name).model_type for module in pkgutil.iter_modules(__path__))


def find(model_type: str) -> TinyFamily:
    """Return the tiny family of a model type; ModuleNotFoundError when there is none."""
    module = importlib.import_module(f"{__name__}.{model_type.replace('-', '_').replace('.', '_')}")
    family: TinyFamily = module.FAMILY
    return family
