"""Video-LLaVA (Lin et al. 2023): one tower for images and an equal one for eight-frame videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from profilers.shapes import Grid
from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE, VIDEO, Modality, VisionTower
from vtw_search.adapters.patches import clip_tower
from vtw_search.adapters.towers import frame_count


class VideoLlavaAdapter(Adapter):
    """Images and videos have placeholders of their own; the processor has its own name for an image's pixels."""

    class_name = "VideoLlavaForConditionalGeneration"
    modalities = (Modality("image", IMAGE.token_settings, (*IMAGE.inputs, "pixel_values_images")), VIDEO)

    def plain_prompt(self, processor: object, prompt: str, images: int) -> str:
        """Return the prompt of the released checkpoint."""
        return "USER: " + "<image>\n" * images + prompt + " ASSISTANT:"

    def towers(self, model: nn.Module, inputs: Mapping[str, Any]) -> Sequence[tuple[nn.Module, list[Grid]]]:
        """Return both towers."""
        grids = self.image_grids(model, inputs)
        images = len(grids) - frame_count(inputs)
        # `get_encoder("video")` returns the tower of images (transformers 5.23).
        return [(self.tower(model), grids[:images]), (model.get_submodule("model.video_tower"), grids[images:])]

    def projector_grids(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Grid]:
        """Return the grids of images, and every frame as one row of patches that its class token is one of."""
        (_, images), (_, frames) = self.towers(model, inputs)
        return [*images, *((1, rows * columns + 1) for rows, columns in frames)]

    def vision_tower(self, model: nn.Module) -> VisionTower | None:
        """Return the tower of images; a batch that brings a video cannot be scored by it."""
        return clip_tower(model, "image_tower")
