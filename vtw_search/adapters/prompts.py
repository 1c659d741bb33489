"""A prompt and its images as the content of a chat, and what a processor makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from vtw_search.errors import RuntimeUseError
from vtw_search.placeholders import other_placeholder, split_at_images

if TYPE_CHECKING:
    # Deployment does not need Pillow.
    from PIL import Image

_REMEDY = "write <image> where an image stands, <image 1> and <image 2> for several, or leave all to stand in front"


def check_prompt(processor: Any, prompt: str, images: int) -> None:
    """Raise RuntimeUseError if a prompt holds placeholders that do not stand for its images."""
    prompt_parts(processor, prompt, images)


def prompt_parts(processor: Any, prompt: str, images: int) -> list[str | int]:
    """Return the texts of a prompt and the numbers of its images, from 0, in their order.

    Images stand where their placeholders are, whatever family's spelling these have; without placeholders they stand
    before the prompt. No placeholder is left in the texts.

    Raises:
        RuntimeUseError: the placeholders are not one for each image, the processor cannot put images there, or there
            are some of another kind.
    """
    texts, named = split_at_images(prompt)
    other = _other(processor, texts)
    if other is not None:
        raise RuntimeUseError(f"a prompt must not hold the placeholder {other}", value=prompt, remedy=_REMEDY)
    if not named:
        return [*range(images), prompt]
    order = list(range(images)) if named == [None] * images else [(number or 0) - 1 for number in named]
    if sorted(order) != list(range(images)):
        rule = f"a prompt's placeholders must stand for each of its images once, {len(named)} are for {images}"
        raise RuntimeUseError(rule, value=prompt, remedy=_REMEDY)
    *before, last = texts
    if order == list(range(images)) and not any(text.strip() for text in before):
        return [*order, last.lstrip()]
    if not _places_images(processor):
        remedy = "put its images before the text, or use a processor whose chat template keeps their places"
        raise RuntimeUseError(
            "the processor cannot put images into the middle of a prompt", value=prompt, remedy=remedy
        )
    mixed = [part for text, image in zip(before, order, strict=True) for part in (text, image)]
    return [part for part in (*mixed, last) if part != ""]


def _other(processor: Any, texts: Sequence[str]) -> str | None:
    """Return a placeholder that is left in texts, of any family or of the processor's own spelling."""
    own = [getattr(processor, name, None) for name in ("image_token", "video_token", "boi_token", "eoi_token")]
    left = [
        other_placeholder(text) or next((str(each) for each in own if each and each in text), None) for text in texts
    ]
    return next((each for each in left if each is not None), None)


def _places_images(processor: Any) -> bool:
    """Return whether an image comes out between two texts when it stands there."""
    if getattr(processor, "chat_template", None) is None:
        return False
    image, first, second = {"type": "image"}, {"type": "text", "text": "before"}, {"type": "text", "text": "behind"}
    rendered = [
        processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        for content in ([first, image, second], [image, first, second])
    ]
    between, without = (text.partition("before")[2].partition("behind")[0] for text in rendered)
    return bool(between != without)


def content(parts: Sequence[str | int], images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Return what a user says in a chat, given the parts of the prompt and its images."""
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": images[part]}
        for part in parts
    ]


def tensors(encoded: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a batch without its labels: they are for training, and long as the whole prompt."""
    return {name: value for name, value in encoded.items() if isinstance(value, torch.Tensor) and name != "labels"}
