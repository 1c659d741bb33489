"""Video-LLaVA (Lin et al. 2023): one tower for images and one for eight-frame videos."""

from __future__ import annotations

from torch import nn

from vtw_search.adapters.base import Adapter
from vtw_search.adapters.parts import IMAGE, VIDEO, Modality, VisionTower
from vtw_search.adapters.patches import clip_tower


class VideoLlavaAdapter(Adapter):
    """Images and videos have placeholders of their own; the processor has its own name for an image's pixels."""

    class_name = "VideoLlavaForConditionalGeneration"
    modalities = (Modality("image", IMAGE.token_settings, (*IMAGE.inputs, "pixel_values_images")), VIDEO)

    def plain_prompt(self, processor: object, prompt: str, images: int) -> str:
        """Return the prompt of the released checkpoint."""
        return "USER: " + "<image>\n" * images + prompt + " ASSISTANT:"

    def vision_tower(self, model: nn.Module) -> VisionTower | None:
        """Return the tower of images; a batch that brings a video cannot be scored by it."""
        return clip_tower(model, "image_tower")
