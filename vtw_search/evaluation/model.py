"""Loading a model with its processor, from a folder or a Hub id, safetensors only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from vtw_search.adapters import Adapter, find_adapter
from vtw_search.broken_imports import broken_import
from vtw_search.errors import ModelError
from vtw_search.evaluation.revision import resolve_revision, unsafe_weights
from vtw_search.evaluation.weights import former_digest, settings_digest, tensors_digest
from vtw_search.facts import ModelFacts

REFERENCE_MODEL = Path(__file__).parents[1] / "reference_model"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# Tensors of the shipped model -> its hash of files while its tensors had the names of transformers 5.23.
_SHIPPED_BEFORE = {"bdaf2e8a0e81bcb5": "66f6c8fcc0c95409"}


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to answer.

    Attributes:
        model: in evaluation mode, on its device.
        processor: its tokenizer and image processor.
        adapter, facts: what is known of its family and of it.
        identity: what the measurements of this model depend on.
        folder: where it was loaded from; None for a Hub model, which its revision identifies.
    """

    model: Any
    processor: Any
    adapter: Adapter
    facts: ModelFacts
    identity: dict[str, Any]
    folder: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where inputs have to be."""
        device: torch.device = self.model.device
        return device

    def former_identities(self) -> list[dict[str, Any]]:
        """Return the identities that records of this very model were stored under before; its files are read again."""
        common = {name: value for name, value in self.identity.items() if name not in ("tensors", "settings")}
        if self.folder is None:
            return [{**common, "files": None}]
        shipped = _SHIPPED_BEFORE.get(str(self.identity["tensors"]))
        return [{**common, "files": files} for files in (former_digest(self.folder), shipped) if files]


def load_model(
    path: str, *, revision: str | None = None, device: str = "auto", dtype: str = "float32", attention: str = "sdpa"
) -> LoadedModel:
    """Load `path` (a folder, a Hub id, or `reference` for the embedded model) without remote code.

    Processor and weights of a Hub model are of one commit, which `facts.fingerprint.revision` names.

    Raises:
        ModelError: there is no such model or device, its weights are missing or not safetensors, a package that its
            processor needs is not installed, or its family is not supported.
    """
    source = str(REFERENCE_MODEL) if path == "reference" else path
    target = usable_device(device)
    try:
        # Here, because transformers imports what they need when they are asked for.
        from transformers import AutoModelForImageTextToText, AutoProcessor

        commit = resolve_revision(source, revision)
        if unsafe := unsafe_weights(source, commit):
            raise ValueError(f"{unsafe[0]} is no safetensors file")
        processor: Any = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            source, revision=commit, trust_remote_code=False
        )
        loading: Any = AutoModelForImageTextToText.from_pretrained(
            source, revision=commit, dtype=DTYPES[dtype], attn_implementation=attention,
            use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
        model, report = loading
        model = model.eval().to(target)
    except ImportError as error:
        rule = "a model and its processor need their packages"
        raise ModelError(rule, value=path, remedy=str(broken_import(error))) from error
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError, SafetensorError) as error:
        remedy = f"{_first_line(error)}; give a folder or Hub id with a config, a processor and safetensors weights"
        raise ModelError("a model must be loadable", value=path, remedy=remedy) from error
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        remedy = (
            f"{len(absent)} weight(s) are missing or of another shape, such as {absent[0]}; download the model again"
        )
        raise ModelError("a model must have all its weights", value=path, remedy=remedy)
    adapter = find_adapter(model)
    facts, folder = _of_commit(adapter.facts(model), commit), Path(source) if Path(source).is_dir() else None
    identity = {
        "model": "reference" if path == "reference" else path,
        "revision": facts.fingerprint.revision,
        "config": facts.fingerprint.config_digest,
        "tensors": tensors_digest(folder) if folder else None,
        "settings": settings_digest(folder) if folder else None,
        "device": torch.cuda.get_device_name(target) if target.startswith("cuda") else target,
        "dtype": dtype,
        "attention": attention,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    return LoadedModel(model, processor, adapter, facts, identity, folder)


def _of_commit(facts: ModelFacts, commit: str | None) -> ModelFacts:
    """Return the facts with the commit: transformers does not leave it in the config in every version."""
    return replace(facts, fingerprint=facts.fingerprint.model_copy(update={"revision": commit}))


def usable_device(asked: str) -> str:
    """Return the device that was asked for, the GPU for `auto` if there is one; ModelError if it cannot be used."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=asked)
    except (RuntimeError, AssertionError) as error:
        remedy = f"{_first_line(error)}; choose auto, cpu or a device that this machine and this torch have"
        raise ModelError("a device must be usable", value=asked, remedy=remedy) from error
    return asked


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
