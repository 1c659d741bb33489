"""A prompt and its images as the content of a chat, and what a processor makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from vtw_search.errors import RuntimeUseError

if TYPE_CHECKING:
    # Deployment does not need Pillow.
    from PIL import Image


def check_prompt(processor: Any, prompt: str) -> None:
    """Raise RuntimeUseError if a prompt holds placeholders: they would ask for images that are not there."""
    for token in _placeholder_texts(processor):
        if token in prompt:
            remedy = f"remove {token} from it; the images are put before the prompt"
            raise RuntimeUseError("a prompt must not hold image placeholders", value=prompt, remedy=remedy)


def content(prompt: str, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Return what a user says in a chat: the images, then the prompt."""
    return [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": prompt}]


def _placeholder_texts(processor: Any) -> Iterator[str]:
    for name in ("image_token", "video_token"):
        token = getattr(processor, name, None)
        if token:
            yield str(token)


def tensors(encoded: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a batch without its labels: they are for training, and long as the whole prompt."""
    return {name: value for name, value in encoded.items() if isinstance(value, torch.Tensor) and name != "labels"}
