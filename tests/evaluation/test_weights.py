"""The identity of a local model is that of its tensors and settings, however they are stored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vtw_search.evaluation import weights
from vtw_search.evaluation.weights import inner_name, settings_digest, tensors_digest

TENSORS = {
    "vision_tower.layers.0.mlp.weight": torch.arange(6.0).view(2, 3),
    "language_model.layers.0.q_proj.weight": torch.arange(4.0).view(2, 2),
    "language_model.layers.0.k_proj.weight": torch.arange(4.0, 8.0).view(2, 2),
    "language_model.norm.weight": torch.ones(3, dtype=torch.bfloat16),
    "step": torch.tensor(3),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights._file_digest.cache_clear()


def saved(folder: Path, *files: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    for number, tensors in enumerate(files):
        save_file(tensors, folder / f"model-{number}.safetensors")
    return folder


def changed(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**TENSORS, name: tensor}


def test_order_files_and_outer_modules_do_not_matter(tmp_path: Path) -> None:
    names = list(TENSORS)
    halves = [{name: TENSORS[name] for name in part} for part in (names[3:], names[:3])]
    wrapped = {name.replace("tower.", "tower.vision_model."): tensor for name, tensor in TENSORS.items()}
    folders = [saved(tmp_path / "one", TENSORS), saved(tmp_path / "two", *halves), saved(tmp_path / "three", wrapped)]
    assert len({tensors_digest(folder) for folder in folders}) == 1


@pytest.mark.parametrize(
    "other",
    [
        changed("language_model.norm.weight", torch.tensor([1, 1, 2], dtype=torch.bfloat16)),
        changed("language_model.norm.weight", torch.ones(3, dtype=torch.float16)),
        changed("vision_tower.layers.0.mlp.weight", torch.arange(6.0).view(3, 2)),
        changed("another.norm.weight", torch.ones(1)),
        {name: tensor for name, tensor in TENSORS.items() if name != "step"},
        {name.replace("q_p", "x").replace("k_p", "q_p").replace("x", "k_p"): each for name, each in TENSORS.items()},
    ],
)
def test_a_value_type_shape_or_place_that_differs_is_another_model(
    tmp_path: Path, other: dict[str, torch.Tensor]
) -> None:
    before = saved(tmp_path / "before", TENSORS)
    assert tensors_digest(saved(tmp_path / "after", other)) != tensors_digest(before)


def test_a_tower_and_a_decoder_that_change_places_are_another_model(tmp_path: Path) -> None:
    tower, decoder = "vision_tower.layers.0.q.weight", "language_model.layers.0.q.weight"
    one, other = torch.zeros(2, 2), torch.ones(2, 2)
    before = saved(tmp_path / "before", {tower: one, decoder: other})
    assert tensors_digest(saved(tmp_path / "after", {tower: other, decoder: one})) != tensors_digest(before)


def test_a_file_is_read_once_as_long_as_nobody_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, read = saved(tmp_path / "model", TENSORS), list[Path]()
    hashed = weights._sum_of_tensors
    monkeypatch.setattr(weights, "_sum_of_tensors", lambda path: read.append(path) or hashed(path))
    first = tensors_digest(folder)
    weights._file_digest.cache_clear()  # as another process finds it
    assert (tensors_digest(folder), len(read)) == (first, 1)
    file, other = folder / "model-0.safetensors", changed("step", torch.tensor(4))
    before = file.stat()
    save_file(other, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert tensors_digest(folder) != first, "size and time of change alone would miss this"


def test_a_damaged_or_unwritable_cache_costs_time_and_nothing_else(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", TENSORS)
    first, kept = tensors_digest(folder), next((tmp_path / "cache/vtw-search/tensors").iterdir())
    for content in ("", "zz" * 32, "12"):
        kept.write_text(content)
        weights._file_digest.cache_clear()
        assert tensors_digest(folder) == first
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("a file where the folder should be")
    weights._file_digest.cache_clear()
    with pytest.warns(RuntimeWarning, match="hashed again at every start"):
        assert tensors_digest(folder) == first


def test_an_index_of_shards_is_no_setting(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", TENSORS)
    (folder / "config.json").write_text("{}")
    before = settings_digest(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert settings_digest(folder) == before
    (folder / "config.json").write_text("{ }")
    assert settings_digest(folder) != before


def test_inner_names() -> None:
    assert inner_name("model.layers.3.mlp.up_proj.weight") == "3.mlp.up_proj.weight"
    assert inner_name("vision_tower.vision_model.embeddings.class_embedding") == "vision.embeddings.class_embedding"
    assert inner_name("scale") == "scale"
