"""Tiny random models of every family, built from the family's own config class, with inputs for them.

A tiny config shrinks sizes and never switches the hard part off: at least six decoder layers with one of every layer
type, windows and chunks shorter than the prompt, deepstack where there is one, grouped queries, at least four experts
where there are experts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

Inputs = dict[str, torch.Tensor]


def no_extras(config: PreTrainedConfig, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Inputs:
    """Return no further inputs."""
    return {}


@dataclass(frozen=True)
class TinyFamily:
    """How to build a tiny model of one family and inputs for it.

    Attributes:
        model_type: of the config, as in transformers' mapping of image-text-to-text models.
        config: makes the tiny config.
        image_tokens: (config, kind) -> token ids of one image or video in the prompt, markers included.
        features: (config, kinds, generator) -> the pixel inputs of all images and videos of a batch, in order.
        extras: (config, input_ids, attention_mask) -> further per-token inputs that the family's processor makes.
        kinds: kinds of image that the family tells apart: `small` always, `large` where image sizes give different
            numbers of tokens, `video` where it takes video.
        max_images: most images in one row.
        start: token ids that every row begins with.
        first_word, last_word: range of ids (both included) that are ordinary text.
        model: makes the model where `AutoModelForImageTextToText.from_config` does not.
        text_only: whether a row may have no image.
    """

    model_type: str
    config: Callable[[], PreTrainedConfig]
    image_tokens: Callable[[PreTrainedConfig, str], list[int]]
    features: Callable[[PreTrainedConfig, Sequence[str], torch.Generator], Inputs]
    extras: Callable[[PreTrainedConfig, torch.Tensor, torch.Tensor], Inputs] = no_extras
    kinds: tuple[str, ...] = ("small",)
    max_images: int = 2
    start: tuple[int, ...] = (1,)
    first_word: int = 30
    last_word: int = 90
    model: Callable[[PreTrainedConfig], PreTrainedModel] = AutoModelForImageTextToText.from_config
    text_only: bool = True
    _models: dict[tuple[str, torch.dtype, int], PreTrainedModel] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def build(self, attention: str = "sdpa", dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
        """Return a model of the caller's own, in evaluation mode, with weights whose logits depend on what it sees."""
        key = (attention, dtype, seed)
        if key not in self._models:
            self._models[key] = self._make(*key)
        return copy.deepcopy(self._models[key])

    def _make(self, attention: str, dtype: torch.dtype, seed: int) -> PreTrainedModel:
        config = self.config()
        config._attn_implementation = attention
        if dtype == torch.float64:
            config._experts_implementation = "eager"  # the grouped kernel refuses double precision
        torch.manual_seed(seed)
        model = self.model(config).eval()
        randomise(model, seed)
        model.generation_config.pad_token_id = 0
        model.generation_config.eos_token_id = None
        return model.to(dtype)

    def in_double(self) -> TinyFamily:
        """Return the family with pixels and features in double precision."""
        single = self.features
        return replace(self, features=lambda *given: {name: _double(value) for name, value in single(*given).items()})

    def inputs(self, rows: Sequence[Sequence[str]], words: int = 6, seed: int = 0) -> Inputs:
        """Return a left-padded batch.

        Args:
            rows: per row, the kinds of its images in order; an empty row is text only.
            words: text tokens after the last image of the first row. Further rows have so many more that, markers of
                images included, rows keep different numbers of tokens.
            seed: of token ids and pixels.
        """
        config, generator = self.config(), torch.Generator().manual_seed(seed)
        ids = [self._row(config, kinds, words + 7 * number + number**2, generator) for number, kinds in enumerate(rows)]
        length = max(map(len, ids))
        input_ids = torch.tensor([[0] * (length - len(row)) + row for row in ids])
        attention_mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in ids])
        flat = [kind for kinds in rows for kind in kinds]
        features = self.features(config, flat, generator) if flat else {}
        extras = self.extras(config, input_ids, attention_mask)
        return {"input_ids": input_ids, "attention_mask": attention_mask, **extras, **features}

    def _row(self, config: PreTrainedConfig, kinds: Sequence[str], words: int, generator: torch.Generator) -> list[int]:
        def text(count: int) -> list[int]:
            return torch.randint(self.first_word, self.last_word + 1, (count,), generator=generator).tolist()

        row = [*self.start, *text(2)]
        for kind in kinds:
            row += [*self.image_tokens(config, kind), *text(1)]
        return row + text(words)


def _double(value: torch.Tensor) -> torch.Tensor:
    return value.double() if value.is_floating_point() else value


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Draw weights at fan-in scale: the default initialisation of a tiny model gives almost constant logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel() if "embed" not in name else 1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
        else:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def reductions(config: PreTrainedConfig) -> dict[str, tuple[Any, Any]]:
    """Return every setting that differs from the family's default config, as (default, tiny)."""
    return dict(_differences(type(config)().to_dict(), config.to_dict(), ""))


def _differences(default: Mapping[str, Any], tiny: Mapping[str, Any], prefix: str) -> list[tuple[str, tuple[Any, Any]]]:
    found: list[tuple[str, tuple[Any, Any]]] = []
    for key in sorted(default.keys() | tiny.keys(), key=str):
        before, after = default.get(key), tiny.get(key)
        if key in ("transformers_version", "_name_or_path", "architectures", "dtype") or before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _differences(before, after, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", (before, after)))
    return found
