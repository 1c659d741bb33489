"""The same picture is in one split, under however many files; and nobody's splits are drawn anew for it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vtw_search.errors import DataWarning, TaskError
from vtw_search.evaluation.splits import SPLITS, make_splits
from vtw_search.evaluation.tasks.jsonl import read_jsonl
from vtw_search.evaluation.tasks.sample import Sample

SIZES = dict.fromkeys(SPLITS, 1000)


def photo(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def task(folder: Path, *names: str, cluster: str | None = None) -> Path:
    path = folder / "task.jsonl"
    rows = [
        {"id": str(number), "images": [name], "prompt": "what?", "answers": ["a"], "cluster": cluster}
        for number, name in enumerate(names)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def quietly(path: Path, near: int | None = None) -> list[Sample]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return read_jsonl(path, near)


def test_one_picture_at_two_levels_of_compression_is_in_one_split(tmp_path: Path) -> None:
    for number in range(60):
        for level in (0, 9):
            photo(number).save(tmp_path / f"{number}-{level}.png", compress_level=level)
    path = task(tmp_path, *(f"{number}-{level}.png" for number in range(60) for level in (0, 9)))
    with pytest.warns(DataWarning, match=r"0-0\.png and 0-9\.png.* and 57 more pair\(s\) are the same pictures"):
        samples = read_jsonl(path)
    splits = make_splits({"all": samples}, 0, SIZES)
    where = {sample.id: split for split in SPLITS for sample in splits[split]}
    assert [number for number in range(60) if where[str(2 * number)] != where[str(2 * number + 1)]] == []
    assert len({sample.cluster for sample in samples}) == 60


def test_the_names_of_clusters_are_what_they_were(tmp_path: Path) -> None:
    """The smallest hash of the bytes of their pictures: a pair that is linked now goes where one of them was."""
    photo(1).save(tmp_path / "a.png", compress_level=0)
    photo(1).save(tmp_path / "b.png", compress_level=9)
    photo(2).save(tmp_path / "c.png")
    from hashlib import sha256

    digests = [sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.png", "b.png", "c.png")]
    names = [sample.cluster for sample in quietly(task(tmp_path, "a.png", "b.png", "c.png"))]
    assert names == [min(digests[:2]), min(digests[:2]), digests[2]]
    with warnings.catch_warnings(action="error"):
        assert [sample.cluster for sample in read_jsonl(task(tmp_path, "a.png", "c.png"))] == digests[::2]


def test_a_turned_photo_and_its_upright_copy_are_linked(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(1).save(tmp_path / "turned.png", exif=exif)
    photo(1).transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    first, second = quietly(task(tmp_path, "turned.png", "upright.png"))
    assert first.cluster == second.cluster


def test_same_bytes_and_clusters_of_the_file_link_without_a_word(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(1).save(tmp_path / name)
    photo(2).save(tmp_path / "c.png")
    with warnings.catch_warnings(action="error"):
        samples = read_jsonl(task(tmp_path, "a.png", "b.png", "c.png", cluster="all"))
    assert len({sample.cluster for sample in samples}) == 1


def test_near_duplicates_are_linked_where_that_is_asked_for(tmp_path: Path) -> None:
    original = photo(1, (120, 80))
    original.save(tmp_path / "original.png")
    original.resize((90, 60)).save(tmp_path / "smaller.jpg", quality=70)
    ImageEnhance.Brightness(original).enhance(1.1).save(tmp_path / "brighter.png")
    for number in range(2, 12):
        photo(number, (120, 80)).save(tmp_path / f"{number}.png")
    path = task(tmp_path, "original.png", "smaller.jpg", "brighter.png", *(f"{number}.png" for number in range(2, 12)))
    with warnings.catch_warnings(action="error"):
        assert len({sample.cluster for sample in read_jsonl(path)}) == 13
    with pytest.warns(DataWarning, match=r"original\.png and .* look alike \(at most 4 of 64 bits differ\)"):
        samples = read_jsonl(path, 4)
    assert len({sample.cluster for sample in samples}) == 11
    assert len({sample.cluster for sample in samples[:3]}) == 1
    with pytest.raises(TaskError, match=r"bits from 0 to 16, got 40"):
        read_jsonl(path, 40)


def test_a_picture_that_cannot_be_read_is_left_to_the_preflight(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture " + name.encode())
    first, second = read_jsonl(task(tmp_path, "a.png", "b.png"))
    assert first.cluster != second.cluster
