"""The questions that the product asks about a model family, and the answers that most families share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from vtw_search.adapters.model_shape import ShapeQuestions
from vtw_search.adapters.parts import IMAGE, VIDEO, LayerArguments, Modality, VisionTower
from vtw_search.adapters.prompts import content, prompt_parts, tensors
from vtw_search.adapters.structure import last_layer_before_shared_keys, recount_problem
from vtw_search.errors import ModelError, RuntimeUseError
from vtw_search.facts import Missing, ModelFacts, ModelFingerprint, config_digest
from vtw_search.tokens import Grid

if TYPE_CHECKING:
    # Deployment does not need Pillow.
    from PIL import Image


class Adapter(ShapeQuestions):
    """Answers for a decoder that is a stack of self-attention layers with placeholder tokens for what is visual.

    A family's file sets the attributes below and overrides what is different.

    Attributes:
        class_name: the model class that holds the language head.
        modalities: the visual inputs it takes.
        layer_arguments: what its decoder layers receive.
        needs_certificate: whether the conformance check must have passed on a model before a policy may run on it.
        needs_image: whether the processor refuses a prompt without an image.
    """

    class_name: ClassVar[str]
    modalities: ClassVar[tuple[Modality, ...]] = (IMAGE, VIDEO)
    layer_arguments: ClassVar[LayerArguments] = LayerArguments()
    needs_certificate: ClassVar[bool] = False
    needs_image: ClassVar[bool] = False

    def facts(self, model: nn.Module) -> ModelFacts:
        """Describe `model`."""
        config: Any = model.config
        layers = len(self.decoder_layers(model))
        fingerprint = ModelFingerprint(
            id=_public_name(config._name_or_path) or type(model).__name__,
            revision=getattr(config, "_commit_hash", None),
            type=config.model_type,
            num_layers=layers,
            config_digest=config_digest(config.to_dict()),
        )
        attention = config.get_text_config(decoder=True)._attn_implementation
        last = last_layer_before_shared_keys(config) or layers
        tower = self.vision_tower(model)
        return ModelFacts(
            fingerprint, layers, self.first_layer(model), last_layer=last, attention=attention,
            vision_layers=tower.layers if tower else 0, missing=self._missing(model, tower),
        )  # fmt: skip

    def _missing(self, model: nn.Module, tower: VisionTower | None) -> dict[str, Missing]:
        answers = {
            "before_decoder": None
            if self.first_layer(model) == 1
            else Missing("features enter its visual tokens between layers", "prune or withdraw at a later layer"),
            "grids": None if self.has_grids(model) else _NO_GRIDS,
            "recount": recount_problem(model.config),
            "vision": None if tower else _NO_TOWER,
            "class_token": None if tower is None or tower.class_tokens else _NO_CLASS_TOKEN,
        }
        return {name: problem for name, problem in answers.items() if problem is not None}

    def first_layer(self, model: nn.Module) -> int:
        """Return the smallest K at which visual tokens may leave."""
        return 1

    def entry_layer(self, model: nn.Module) -> int:
        """Return the first decoder layer whose input holds visual features."""
        return 0

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the decoder layers in order; ModelError when there is no such list."""
        config: Any = model.config
        count = config.get_text_config(decoder=True).num_hidden_layers
        decoder: Any = model.get_decoder()  # type: ignore[operator]
        lists = [
            module for module in decoder.modules() if isinstance(module, nn.ModuleList) and _is_stack(module, count)
        ]
        if len(lists) != 1:
            remedy = f"{type(decoder).__name__} has {len(lists)} lists of {count} modules; use another model"
            raise ModelError("the decoder must be one stack of layers", value=config.model_type, remedy=remedy)
        return lists[0]

    def visual_mask(self, model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor | None:
        """Return (B, T) bool, true at the visual tokens of a forward call, or None when the call brings none.

        Placeholders are found in `input_ids`, or in `inputs_embeds` by their embedding. A placeholder whose kind of
        input is not in the call is an ordinary token.

        Args:
            model: the model that is called.
            inputs: the keyword arguments of the call.

        Raises:
            RuntimeUseError: embeddings were passed without features, so that nothing tells which tokens are visual.
        """
        tokens = [self.placeholder(model, modality) for modality in self.modalities if _brings(inputs, modality)]
        input_ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
        if input_ids is not None:
            return _any_equal(input_ids, tokens) if tokens else None
        if embeds is None or (not tokens and embeds.shape[1] == 1):
            return None
        if not tokens:
            raise RuntimeUseError(
                "visual tokens in inputs_embeds must be told",
                value=sorted(name for name, value in inputs.items() if value is not None),
                remedy="pass the features with them, or their places: active.mark_visual(mask)",
            )
        table: Any = model.get_input_embeddings()  # type: ignore[operator]
        rows = table(torch.tensor(tokens, device=embeds.device)).to(embeds.dtype)
        found: torch.Tensor = (embeds[:, :, None, :] == rows).all(dim=-1).any(dim=-1)
        return found

    def placeholder(self, model: nn.Module, modality: Modality) -> int:
        """Return the token id that stands for one visual token; ModelError when the config does not name it."""
        config: Any = model.config
        for setting in modality.token_settings:
            if getattr(config, setting, None) is not None:
                return int(getattr(config, setting))
        raise ModelError(
            f"the config must name the placeholder of {modality.name} tokens",
            value=config.model_type,
            remedy=f"set one of {', '.join(modality.token_settings)}",
        )

    def encode(
        self, processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]
    ) -> dict[str, torch.Tensor]:
        """Return a left-padded batch for `generate`; one prompt (without template) and its images per row.

        Raises:
            RuntimeUseError: a row lacks the image that the family needs, or as `prompt_parts`.
        """
        if self.needs_image and not all(images):
            remedy = "give every prompt one image at least"
            raise RuntimeUseError(
                f"a prompt of {self.class_name} must have an image", value=list(prompts), remedy=remedy
            )
        parts = [prompt_parts(processor, text, len(row)) for text, row in zip(prompts, images, strict=True)]
        if getattr(processor, "chat_template", None) is None:
            texts = [self.plain_prompt(processor, str(text), len(others)) for *others, text in parts]
            flat = [list(row) for row in images] if any(images) else None
            encoded = processor(images=flat, text=texts, padding=True, padding_side="left", return_tensors="pt")
            return tensors(encoded)
        chats = [[{"role": "user", "content": content(each, row)}] for each, row in zip(parts, images, strict=True)]
        encoded = processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        )  # fmt: skip
        return tensors(encoded)

    def plain_prompt(self, processor: Any, prompt: str, images: int) -> str:
        """Return the text of a prompt for a processor without chat template."""
        raise ModelError(
            "the processor must have a chat template",
            value=type(processor).__name__,
            remedy="save the model with its chat_template.jinja",
        )

    def vision_tower(self, model: nn.Module) -> VisionTower | None:
        """Return the tower, or None where it is not known which patches a visual token stands for."""
        return None

    def block_grid(self, model: nn.Module) -> Grid | None:
        """Return the shape of every visual block, where all blocks of the family have one shape."""
        return None

    def has_grids(self, model: nn.Module) -> bool:
        """Tell whether `grids` has an answer."""
        return self.block_grid(model) is not None

    def grids(self, model: nn.Module, inputs: Mapping[str, Any], tokens: int) -> list[Grid]:
        """Return the shape of each visual block of a prefill, in the order of its `tokens` visual tokens.

        Raises:
            ModelError: the family's adapter does not know.
        """
        grid = self.block_grid(model)
        if grid is None:
            raise ModelError(f"{self.class_name}: {_NO_GRIDS.reason}", remedy=_NO_GRIDS.remedy)
        return [grid] * -(-tokens // grid.tokens)


_NO_GRIDS = Missing("its adapter does not know the grid of the visual tokens", "prune with scorer uniform")
_NO_TOWER = Missing(
    "its adapter does not know which patches of a vision tower its visual tokens stand for",
    "prune inside the decoder, for example with scorer text_to_visual",
)
_NO_CLASS_TOKEN = Missing("its vision tower has no class token", "scorer vision_received reads the patches alone")


def _is_stack(modules: nn.ModuleList, count: int) -> bool:
    takes_states = ("hidden_states" in signature(type(module).forward).parameters for module in modules)
    return len(modules) == count and all(takes_states)


def _brings(inputs: Mapping[str, Any], modality: Modality) -> bool:
    encoded = inputs.get("mm_encoder_outputs")
    # Families with one kind of visual input take its features by themselves, too.
    features = encoded.get(modality.name) if isinstance(encoded, Mapping) else encoded
    return features is not None or any(inputs.get(name) is not None for name in modality.inputs)


def _any_equal(ids: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    found = ids == tokens[0]
    for token in tokens[1:]:
        found = found | (ids == token)
    return found


def _public_name(source: str) -> str:
    """Return a Hub id as it is, and a folder by its name: where it lies on one machine says nothing on another."""
    return Path(source).name if Path(source).is_dir() else source
