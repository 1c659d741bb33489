"""digits_read: read a number that is pasted together from handwritten digits.

The glyphs are the 1,797 of the UCI optical recognition set that scikit-learn ships (Alpaydin and Kaynak 1998).
They are cut once into pools, so that no glyph is seen by more than one of training and the evaluation splits.
Every number measured on this task is therefore conditional on these pools of glyphs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from vtw_search.evaluation.tasks.sample import Sample

IMAGE_SIZE = 64
GLYPH_SIZE = 16
GRID = 8
LENGTHS = (2, 3, 4)
PROMPTS = ("what number is written in the image?", "what number does the image show?", "read the number.")
# Sizes of the disjoint glyph pools, in order; what is left (1,047 glyphs) is for training.
POOL_GLYPHS = {"holdout": 300, "calibration": 150, "selection": 150, "confirmation": 150}
# Images per evaluation split, 200 of each length.
POOL_IMAGES = 600
_POOL_SEED = 20240509


@cache
def glyph_pools() -> dict[str, np.ndarray]:
    """Map pool name (`train` and the four evaluation splits) to glyph indices into the scikit-learn set."""
    from sklearn.datasets import load_digits

    order = np.random.default_rng(_POOL_SEED).permutation(len(load_digits().target))
    pools, start = {}, 0
    for name, size in POOL_GLYPHS.items():
        pools[name] = order[start : start + size]
        start += size
    pools["train"] = order[start:]
    return pools


@cache
def _glyphs() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target


def glyph_labels(indices: np.ndarray) -> np.ndarray:
    """Return the digit, 0 to 9, of every glyph index."""
    labels: np.ndarray = _glyphs()[1][indices]
    return labels


def glyph_image(index: int, size: int) -> Image.Image:
    """Return glyph `index` as an 8-bit ink mask of `size` x `size` (255 is full ink)."""
    ink = (_glyphs()[0][index] / 16 * 255).astype(np.uint8)
    return Image.fromarray(ink).resize((size, size), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Placement:
    """One glyph and where it is pasted: upper left corner and size in pixels."""

    glyph: int
    left: int
    top: int
    size: int


@dataclass(frozen=True)
class NumberImage:
    """A number drawn by pasting glyphs from left to right on a plain background."""

    placements: tuple[Placement, ...]
    ink: tuple[int, int, int]
    paper: tuple[int, int, int]

    def open(self) -> Image.Image:
        """Render the image, `IMAGE_SIZE` x `IMAGE_SIZE` RGB."""
        image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), self.paper)
        for place in self.placements:
            image.paste(self.ink, (place.left, place.top), glyph_image(place.glyph, place.size))
        return image

    def size(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        return IMAGE_SIZE, IMAGE_SIZE

    def digest(self) -> str:
        """Hash the recipe and the glyphs' own pixels, which decide every pixel."""
        pixels = b"".join(_glyphs()[0][place.glyph].tobytes() for place in self.placements)
        return hashlib.sha256(repr(self).encode() + pixels).hexdigest()


def random_number_image(rng: np.random.Generator, pool: np.ndarray, length: int) -> NumberImage:
    """Draw `length` glyphs of `pool` and place them side by side, each at its own height, on a grid of 8 pixels."""
    left = GRID * int(rng.integers(0, (IMAGE_SIZE - length * GLYPH_SIZE) // GRID + 1))
    tops = GRID * rng.integers(0, (IMAGE_SIZE - GLYPH_SIZE) // GRID + 1, length)
    glyphs = rng.choice(pool, length)
    placements = tuple(
        Placement(int(glyph), left + slot * GLYPH_SIZE, int(top), GLYPH_SIZE)
        for slot, (glyph, top) in enumerate(zip(glyphs, tops, strict=True))
    )
    ink = tuple(int(value) for value in rng.integers(0, 90, 3))
    paper = tuple(int(value) for value in rng.integers(215, 256, 3))
    return NumberImage(placements, ink, paper)  # type: ignore[arg-type]


def number_of(image: NumberImage) -> str:
    """Return the number that the image shows, as text."""
    return "".join(str(glyph_labels(np.array(place.glyph))) for place in image.placements)


def load_pool(pool: str) -> Iterator[Sample]:
    """Yield the fixed samples of one evaluation pool (`calibration`, `selection`, `confirmation`, `holdout`)."""
    rng = np.random.default_rng([_POOL_SEED, list(POOL_GLYPHS).index(pool)])
    for number in range(POOL_IMAGES):
        image = random_number_image(rng, glyph_pools()[pool], LENGTHS[number % len(LENGTHS)])
        answer = number_of(image)
        yield Sample(
            id=f"{pool}-{number}",
            images=(image,),
            prompt=PROMPTS[int(rng.integers(len(PROMPTS)))],
            answers=(answer,),
            metric="exact_match",
            cluster=f"{pool}-{number}",
            slices={"digits": str(len(answer))},
        )
