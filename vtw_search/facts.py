"""What the product knows of a loaded model, filled in by adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vtw_search.frozen import Frozen, FrozenModel

# The settings that decide a model's shape. Nothing else of a config enters the digest, so that a new release of
# transformers, which adds keys with defaults, does not change it.
_SHAPE_KEYS = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "image_size",
    "patch_size",
    "image_token_id",
    "vision_feature_layer",
    "vision_feature_select_strategy",
)


class ModelFingerprint(FrozenModel):
    """Identity of a model as far as a policy depends on it.

    Attributes:
        id: Hub id or folder name it was loaded from.
        revision: commit of the Hub repository, or None for a folder.
        type: `model_type` of the config.
        num_layers: L, the number of decoder layers.
        config_digest: hash of the shape-deciding part of the config.
    """

    id: str
    revision: str | None
    type: str
    num_layers: int
    config_digest: str

    def same_shape(self, other: ModelFingerprint) -> bool:
        """Tell whether a policy for one can run on the other; names and revisions may differ."""
        return (self.type, self.num_layers, self.config_digest) == (other.type, other.num_layers, other.config_digest)

    def describe(self) -> str:
        """Return the identity for messages."""
        return f"{self.id} ({self.type}, {self.num_layers} layers, config {self.config_digest})"


@dataclass(frozen=True)
class Missing:
    """Why a model cannot do something, and what to do instead."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class ModelFacts:
    """Answers to the required questions about a model.

    Attributes:
        fingerprint: its identity.
        num_layers: L.
        first_layer, last_layer: supported range of K for a decoder stage. K = L, which keeps every token, is supported
            in any case.
        attention: name of the attention implementation that is active.
        vision_layers: how many layers the vision tower has; 0 where the adapter does not know it.
        missing: capability -> why the model lacks it. Capabilities: `before_decoder` (tokens may leave at the input of
            layer 0), `grids` (the shape of the visual blocks), `recount` (positions may be numbered anew), `vision`
            (the tower's attention can be placed at the visual tokens), `class_token` (and it has a class token).
    """

    fingerprint: ModelFingerprint
    num_layers: int
    first_layer: int
    last_layer: int
    attention: str
    vision_layers: int = 0
    missing: Mapping[str, Missing] = Frozen()

    def __post_init__(self) -> None:
        object.__setattr__(self, "missing", Frozen(self.missing))

    @property
    def possible_layers(self) -> list[int]:
        """Every K at which visual tokens may leave with layers behind it."""
        return [layer for layer in range(self.num_layers) if self.supports(layer)]

    def supports(self, layer: int) -> bool:
        """Tell whether visual tokens may leave at the input of decoder layer `layer`."""
        return self.first_layer <= layer <= self.last_layer or layer == self.num_layers


def config_digest(config: Mapping[str, Any]) -> str:
    """Hash the shape-deciding keys of a (nested) config dictionary."""

    def shape_of(part: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: part[key] for key in _SHAPE_KEYS if part.get(key) is not None}
        nested = {key: shape_of(value) for key, value in part.items() if isinstance(value, Mapping)}
        return kept | {key: value for key, value in nested.items() if value}

    text = json.dumps(shape_of(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def whole_config_digest(config: Mapping[str, Any]) -> str:
    """Hash every setting of a config dictionary, except where it came from and how it is computed."""
    left_out = {"_name_or_path", "transformers_version", "dtype", "architectures"}
    text = json.dumps(_without(config, left_out), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without(part: Any, names: set[str]) -> Any:
    if isinstance(part, Mapping):
        return {str(key): _without(value, names) for key, value in part.items() if key not in names}
    return part
