"""The same picture is in one split, under however many files; and nobody's splits are drawn anew for it."""

from __future__ import annotations

import json
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vtw_search.config import load_config
from vtw_search.errors import DataWarning, TaskError
from vtw_search.evaluation.splits import SPLITS, make_splits
from vtw_search.evaluation.tasks import load_pools, looks
from vtw_search.evaluation.tasks.jsonl import read_jsonl
from vtw_search.evaluation.tasks.sample import FileImage, Sample

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
    digests = [sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.png", "b.png", "c.png")]
    names = [sample.cluster for sample in quietly(task(tmp_path, "a.png", "b.png", "c.png"))]
    assert names == [min(digests[:2]), min(digests[:2]), digests[2]]
    with warnings.catch_warnings(action="error"):
        assert [sample.cluster for sample in read_jsonl(task(tmp_path, "a.png", "c.png"))] == digests[::2]


def test_the_splits_of_the_shipped_tasks_are_what_they_were() -> None:
    config, found = load_config(), dict[str, str]()
    for name, each in config.named_tasks.items():
        splits = make_splits(load_pools(each.source, each.options), config.seed, config.samples.model_dump())
        lines = [f"{split} {sample.id} {sample.cluster}" for split in SPLITS for sample in splits[split]]
        found[name] = sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert found == {
        "easy_vqa_color": "cee5b5b7c759adca",
        "easy_vqa_shape": "27127a9f72776528",
        "easy_vqa_yesno": "e091a219b2f9d5dd",
        "digits_read": "93c6937e58194fab",
    }


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
    for wrong in (40, -1, 4.5, "four"):
        with pytest.raises(TaskError, match=rf"whole number of bits from 0 to 16, got {wrong!r}"):
            load_pools("jsonl", {"path": path, "near_duplicates": wrong})


def decoded(path: Path, monkeypatch: pytest.MonkeyPatch, near: int | None = None) -> tuple[list[str], list[str]]:
    """Return the clusters of a task file, and the names of the pictures that were decoded for them."""
    opened, whole = list[str](), FileImage.open

    def noted(self: FileImage) -> Image.Image:
        opened.append(self.path.name)
        return whole(self)

    with monkeypatch.context() as patched:
        patched.setattr(FileImage, "open", noted)
        return [sample.cluster for sample in quietly(path, near)], sorted(opened)


def test_pictures_are_decoded_once_as_long_as_they_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = [f"{number}.png" for number in range(100)]
    for number, name in enumerate(names):
        photo(number // 2).save(tmp_path / name, compress_level=9 * (number % 2))
    photo(1, (8, 8)).save(tmp_path / "alone.png")
    path = task(tmp_path, *names, "alone.png")
    clusters, first = decoded(path, monkeypatch)
    assert (len(set(clusters)), first) == (51, sorted(names)), "one of another size is not looked at"
    assert decoded(path, monkeypatch) == (clusters, [])
    assert decoded(path, monkeypatch, near=0) == (clusters, ["alone.png"])
    photo(999).save(tmp_path / "3.png")
    changed, again = decoded(path, monkeypatch)
    assert (len(set(changed)), again) == (52, ["3.png"])
    (store,) = (tmp_path / "cache" / "vtw-search" / "pictures").iterdir()
    for damage in ("", "[]", store.read_text()[:500], '{"a": {"pixels": 1}}'):
        store.write_text(damage)
        assert decoded(path, monkeypatch) == (changed, sorted(names))


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(looks, "_WORTH_KEEPING", 2)
    for name in "ab":
        photo(ord(name)).save(tmp_path / f"{name}.png")
    with pytest.warns(RuntimeWarning, match="pictures are decoded again at every start: a result must be writable"):
        assert len({sample.cluster for sample in read_jsonl(task(tmp_path, "a.png", "b.png"))}) == 2


def test_a_picture_that_cannot_be_read_is_left_to_the_preflight(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture " + name.encode())
    first, second = read_jsonl(task(tmp_path, "a.png", "b.png"))
    assert first.cluster != second.cluster
