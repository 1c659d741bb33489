"""Pictures reach a model as a server shows them, whatever their file: every mode and format of Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image, features

from tests.adapters.processors import FAMILIES
from vtw_search.errors import TaskError
from vtw_search.evaluation.tasks import FileImage, load_pools
from vtw_search.evaluation.tasks.picture import as_served, is_blank, pixels_digest

Image.init()
pytestmark = pytest.mark.filterwarnings("ignore:IM image format:DeprecationWarning")
PROCESSORS = ("llava", "qwen2_5_vl", "internvl", "idefics3", "gemma3")
LOSSLESS = ("PNG", "TIFF", "BMP", "TGA", "GIF", "WEBP", "PPM", "DDS", "IM", "SGI", "PCX")
RAMP = np.tile(np.arange(256, dtype=np.uint8), (40, 1))


@cache
def processor(name: str) -> Any:
    return getattr(transformers, FAMILIES[name].image_processor)(**FAMILIES[name].image_settings)


def source(mode: str) -> Image.Image | None:
    """A ramp of greys in a mode, half transparent where the mode can say so; None where Pillow makes none."""
    ramp = Image.fromarray(RAMP)
    try:
        if mode.startswith("I;16"):
            return Image.fromarray(RAMP.astype(np.uint16) * 257).convert(mode)
        if mode in ("I", "F"):
            return Image.fromarray(RAMP.astype(np.int32 if mode == "I" else np.float32) * 100)
        if mode in ("LA", "RGBA", "PA"):
            whole = ramp.convert("LA" if mode == "LA" else "RGBA")
            whole.putalpha(Image.fromarray(RAMP.T.repeat(7, axis=1)[:40, :256].copy()))
            return whole.convert(mode)
        return (ramp if mode == "P" else ramp.convert("RGB")).convert(mode)
    except (ValueError, OSError):
        return None


def files() -> Iterator[tuple[str, str, bytes]]:
    """Every mode in every format that can hold it and be read again."""
    for mode in ("1", "L", "P", "PA", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16L",
                 "I;16B", "I;16N", "La", "RGBa", "RGBX"):  # fmt: skip
        image = source(mode)
        for kind in sorted(Image.SAVE) if image else ():
            stream = io.BytesIO()
            try:
                image.save(stream, format=kind)
                Image.open(io.BytesIO(stream.getvalue())).load()
            except (OSError, ValueError, KeyError, TypeError, AttributeError, SystemError, NotImplementedError):
                continue  # this format does not hold this mode, or is only written
            yield mode, kind, stream.getvalue()
    for mode, key in (("P", 7), ("L", 7), ("1", 0), ("RGB", (7, 7, 7))):
        for kind in ("PNG",) if mode == "RGB" else ("PNG", "GIF"):
            image, stream = source(mode), io.BytesIO()
            assert image is not None
            image.save(stream, format=kind, transparency=key)
            yield f"{mode} with a transparent colour", kind, stream.getvalue()


def served(name: str, image: Image.Image) -> list[torch.Tensor]:
    found = processor(name)(images=[image], return_tensors="pt")["pixel_values"]
    return [torch.as_tensor(np.asarray(each)) for each in found]


def test_search_and_server_show_the_same_pixels(tmp_path: Path) -> None:
    seen, refused = set(), set()
    for mode, kind, content in files():
        path = tmp_path / f"{mode.replace(';', '')}.{kind}"
        path.write_bytes(content)
        read, clear = Image.open(path).mode, "transparency" in Image.open(path).info
        if read.startswith(("I", "F")):
            with pytest.raises(TaskError, match="8 bits"):
                FileImage(path).open()
            refused.add(read)
            continue
        # How a mode is converted does not depend on the format that it was read from.
        known = (read, clear) in {(each, other) for each, other, _ in seen}
        for name in PROCESSORS[:1] if known else PROCESSORS:
            ours, theirs = served(name, FileImage(path).open()), served(name, Image.open(path))
            assert all(map(torch.equal, ours, theirs)), (mode, kind, read, name)
        seen.add((read, clear, kind))
    assert {"1", "L", "P", "LA", "RGB", "RGBA", "CMYK"} <= {mode for mode, _, _ in seen}
    assert {"1", "L", "P", "RGB"} <= {mode for mode, clear, _ in seen if clear}
    assert {"I", "F", "I;16"} <= refused
    assert {"PNG", "TIFF", "GIF", "BMP", *(["WEBP"] if features.check("webp") else [])} <= {kind for _, _, kind in seen}


def test_no_accepted_picture_loses_grey_levels() -> None:
    looked_at = 0
    for mode, kind, content in files():
        image = Image.open(io.BytesIO(content))
        if kind not in LOSSLESS or mode.startswith(("1", "I", "F", "LA", "PA", "RGBA")):
            continue  # what has fewer levels itself, or was clipped when it was saved
        levels = np.unique(np.asarray(as_served(image, "x").convert("L")))
        assert len(levels) >= 200, (mode, kind)
        looked_at += 1
    assert looked_at >= 10


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16L", "I;16B", "I;16N"])
def test_more_than_8_bits_are_refused_by_file(mode: str) -> None:
    image = Image.new(mode, (4, 4))
    with pytest.raises(TaskError, match=rf"8 bits a channel: scan.tif, got 'mode {mode}'; convert it to 8 bits"):
        as_served(image, "scan.tif")


def test_colours_that_cannot_be_converted_are_refused_by_file() -> None:
    with pytest.raises(TaskError, match=r"convertible to RGB: a.png, got 'mode La'; .*save it as RGB"):
        as_served(Image.new("La", (4, 4)), "a.png")


def transparent(mode: str) -> Image.Image:
    image = Image.new(mode, (4, 4))
    image.info["transparency"] = {"P": 0, "L": 0, "1": 0, "RGB": (0, 0, 0)}[mode]
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (4, 4), (9, 9, 9, 0)), Image.new("LA", (4, 4), (9, 0)), Image.new("PA", (4, 4), (0, 0)),
        *map(transparent, ("P", "L", "1", "RGB")),
    ],
    ids=["RGBA", "LA", "PA", "P and tRNS", "L and tRNS", "1 and tRNS", "RGB and tRNS"],
)  # fmt: skip
def test_what_is_transparent_is_white(image: Image.Image) -> None:
    assert np.asarray(as_served(image, "x")).min() == 255


def test_blank_pictures_are_told() -> None:
    assert is_blank(Image.new("RGB", (3, 3), (1, 2, 3)))
    assert not is_blank(Image.fromarray(RAMP).convert("RGB"))


@pytest.mark.slow
@pytest.mark.parametrize("task,options", [("easy_vqa", {"kind": "shape"}), ("digits_read", {})])
def test_no_picture_of_the_shipped_tasks_is_in_two_clusters(task: str, options: dict[str, str]) -> None:
    clusters: dict[str, set[str]] = {}
    for samples in load_pools(task, options).values():
        for sample in samples:
            for image in sample.images:
                clusters.setdefault(pixels_digest(image.open()), set()).add(sample.cluster)
    assert [each for each in clusters.values() if len(each) > 1] == []
