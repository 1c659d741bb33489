"""GLM-4.1V (2025) and the families built like it: every frame of a video is a run of image placeholders."""

from __future__ import annotations

from vtw_search.adapters.generic import GenericAdapter
from vtw_search.adapters.parts import IMAGE, VIDEO, Modality


class Glm4vAdapter(GenericAdapter):
    """A call that brings a video has its features at the image placeholders, or, in embeddings, at the video's own."""

    modalities = (IMAGE, VIDEO, Modality(VIDEO.name, IMAGE.token_settings, VIDEO.inputs))
