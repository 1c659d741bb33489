"""How a picture is opened: as a server hands it to a model's processor. The one place that decodes pictures."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image, ImageOps

from vtw_search.errors import TaskError

# More than 8 bits a pixel: Pillow clips what is above 255, so that such pictures come out black or white.
_DEEP = ("I", "F")
_WHITE = (255, 255, 255, 255)


def as_served(image: Image.Image, place: str) -> Image.Image:
    """Return a picture upright, in RGB, with what is transparent composited on white.

    That is what `transformers.image_transforms.convert_to_rgb` makes of it, and what servers show a model.

    Args:
        image: as `PIL.Image.open` returns it.
        place: names it in messages.

    Raises:
        TaskError: it has more than 8 bits a pixel of one channel, or colours that Pillow cannot convert.
    """
    if image.mode.startswith(_DEEP):
        remedy = "convert it to 8 bits, over the range that carries its content; nothing here may guess that range"
        raise TaskError(f"an image must have 8 bits a channel: {place}", value=f"mode {image.mode}", remedy=remedy)
    upright = ImageOps.exif_transpose(image)
    try:
        return _on_white(upright) if _has_alpha(upright) else upright.convert("RGB")
    except ValueError as error:
        remedy = f"{error}; save it as RGB"
        raise TaskError(
            f"an image must be convertible to RGB: {place}", value=f"mode {image.mode}", remedy=remedy
        ) from error


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.getbands() or image.info.get("transparency") is not None


def _on_white(image: Image.Image) -> Image.Image:
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, _WHITE), whole).convert("RGB")


def pixels_digest(image: Image.Image) -> str:
    """Return a hash of the size and the pixels of an RGB picture, however its file compresses them."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def is_blank(image: Image.Image) -> bool:
    """Tell whether all pixels of a picture have one colour."""
    return all(band.getextrema()[0] == band.getextrema()[1] for band in image.split())


def difference_hash(image: Image.Image) -> int:
    """Return 64 bits: whether each cell of an 8 x 9 grey thumbnail is brighter than its right neighbour (dHash)."""
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS), dtype=int)
    return int.from_bytes(np.packbits(small[:, :-1] > small[:, 1:]).tobytes())
