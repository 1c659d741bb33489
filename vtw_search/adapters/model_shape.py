"""The adapter's questions about what a model costs, and the answers that most families share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from profilers.shapes import Grid, LayerShape, ModelShape, ProjectorShape, TowerShape
from vtw_search.adapters.shapes import layer_shape
from vtw_search.adapters.towers import COUNTED_BY_RUNNING, image_grids, joins_pictures, projector_shape, tower_shape
from vtw_search.errors import ModelError

_PROJECTORS = ("multi_modal_projector", "connector", "aligner", "projector", "vision_projection", "mm_projector")
_INNER_PROJECTORS = ("merger", "deepstack_merger_list", "merger_list")
# Settings whose square is the number of patches that become one visual token.
_MERGE_SIDES = ("spatial_merge_size", "scale_factor", "downsample_factor", "merge_size")


class ShapeQuestions:
    """Answers from a model's modules and config; nothing is run, so that a model on the meta device is enough."""

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the decoder layers in order."""
        raise NotImplementedError

    def shape(self, model: nn.Module) -> ModelShape:
        """Return the shape record of `model`; a tower or projector without a record is None, with the reason.

        Raises:
            ModelError: a decoder layer cannot be read.
        """
        config: Any = model.config
        text = config.get_text_config(decoder=True)
        layers = tuple(self.layer_shape(layer, text, number) for number, layer in enumerate(self.decoder_layers(model)))
        problems: dict[str, str] = {}
        try:
            tower = self.tower_shape(model)
        except ModelError as error:
            tower, problems["tower"] = None, str(error)
        try:
            projector = None if tower is None else self.projector_shape(model)
        except ModelError as error:
            projector, problems["projector"] = None, str(error)
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        return ModelShape(layers, int(head.weight.shape[0]), tower, projector, tuple(problems.items()))

    def layer_shape(self, layer: nn.Module, config: Any, number: int) -> LayerShape:
        """Return the shape of decoder layer `number`; `config` is the text model's."""
        return layer_shape(layer, config, number)

    def tower(self, model: nn.Module) -> nn.Module:
        """Return the vision tower; ModelError when there is none that can be told from the rest."""
        found: nn.Module = model.get_encoder("image")  # type: ignore[operator]
        if found is model or found is getattr(model, "model", None):
            raise ModelError(
                "the model must have a vision tower", value=type(model).__name__, remedy=COUNTED_BY_RUNNING
            )
        return found

    def tower_shape(self, model: nn.Module) -> TowerShape:
        """Return the tower's shape; ModelError when no record fits it."""
        config: Any = model.config
        tower: Any = self.tower(model)
        settings = getattr(tower, "config", config.vision_config)
        return tower_shape(tower, settings, getattr(config, "vision_feature_layer", None))

    def projector_parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return what lies between the tower's layers and the decoder, by name."""
        outer: Any = getattr(model, "model", model)
        tower = self.tower(model)
        names = {module: name for name, module in model.named_modules()}
        parts = [getattr(outer, name, None) for name in _PROJECTORS]
        parts += [getattr(tower, name, None) for name in _INNER_PROJECTORS]
        return {names[part]: part for part in parts if isinstance(part, nn.Module)}

    def projector_shape(self, model: nn.Module) -> ProjectorShape:
        """Return the projector's shape; ModelError when no record fits it."""
        return projector_shape(self.projector_parts(model), self.merge(model), self.projector_extra_rows(model))

    def projector_extra_rows(self, model: nn.Module) -> int:
        """Return rows per image beside its visual tokens that pass the projector."""
        return 0

    def merge(self, model: nn.Module) -> int:
        """Return how many patches become one visual token."""
        config: Any = model.config
        return next(filter(None, map(_merged, (config, getattr(config, "vision_config", None)))), 1)

    def default_grid(self, model: nn.Module) -> Grid:
        """Return the patches of one image of the tower's own size, or 48 x 48 where it takes any size.

        Raises:
            ModelError: the configuration says nothing of a vision part.
        """
        vision: Any = getattr(model.config, "vision_config", None)
        if vision is None:
            raise ModelError(
                "a configuration must say how large a picture is", value=type(model.config).__name__,
                remedy="give profile.visual_tokens",
            )  # fmt: skip
        size = getattr(vision, "image_size", None)
        if size is None:
            return 48, 48
        (height, width), (rows, columns) = _pair(size), _pair(vision.patch_size)
        return height // rows, width // columns

    def expert_visual_mask(self, model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor | None:
        """Return (B, T) bool, true at the tokens that experts for visual tokens take."""
        return self.visual_mask(model, inputs)

    def visual_mask(self, model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor | None:
        """Return (B, T) bool, true at the visual tokens of a forward call."""
        raise NotImplementedError

    def image_grids(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Grid]:
        """Return the patch grid of every image, crop or frame in the inputs of a forward call."""
        config: Any = model.config
        return image_grids(inputs, config.vision_config.patch_size, joins_pictures(self.tower(model)))

    def towers(self, model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[tuple[nn.Module, list[Grid]]]:
        """Return every tower with those of `image_grids` that it is given; all have the shape of `tower`."""
        return [(self.tower(model), self.image_grids(model, inputs))]

    def projector_grids(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Grid]:
        """Return, for each of `image_grids`, what the projector gets of it; `merge` patches become a token there."""
        return self.image_grids(model, inputs)


def _pair(value: int | Sequence[int]) -> Sequence[int]:
    return (value, value) if isinstance(value, int) else value


def _merged(settings: Any) -> int | None:
    """Return the patches that become one visual token, as far as these settings say."""
    for name in _MERGE_SIDES:
        if isinstance(getattr(settings, name, None), int):
            return int(getattr(settings, name)) ** 2
    if getattr(settings, "merge_kernel_size", None) is not None:
        return int(math.prod(settings.merge_kernel_size))
    ratio = getattr(settings, "downsample_ratio", None)
    return None if ratio is None else round(1 / ratio**2)
