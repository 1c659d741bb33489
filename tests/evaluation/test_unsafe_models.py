"""Nothing that comes with a model is run: no code of its own, no pickle."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from vtw_search.errors import ModelError
from vtw_search.evaluation.model import REFERENCE_MODEL, load_model

INDEX = json.dumps({"metadata": {}, "weight_map": {"language_model.model.norm.weight": "pytorch_model.bin"}})


class Payload:
    """Pickled, it touches a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the reference model; whatever runs of it leaves the file `ran`."""
    (tmp_path / "model").mkdir()
    for each in REFERENCE_MODEL.iterdir():
        (tmp_path / "model" / each.name).write_bytes(each.read_bytes())
    code = f"from pathlib import Path\nPath({str(tmp_path / 'model' / 'ran')!r}).touch()\nclass Mine: pass\n"
    (tmp_path / "model" / "mine.py").write_text(code)
    return tmp_path / "model"


def edit(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize(
    "file,entries",
    [
        ("config.json", {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}),
        ("config.json", {"model_type": "mine", "auto_map": {"AutoModelForImageTextToText": "mine.Mine"}}),
        ("processor_config.json", {"processor_class": "Mine", "auto_map": {"AutoProcessor": "mine.Mine"}}),
    ],
)
def test_a_model_that_needs_code_of_its_own_is_refused(folder: Path, file: str, entries: dict[str, Any]) -> None:
    edit(folder / file, **entries)
    with pytest.raises(ModelError, match="must be loadable"):
        load_model(str(folder), device="cpu")
    assert not (folder / "ran").exists()


def test_code_of_a_models_own_is_not_run_where_transformers_has_the_same(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoConfig": "mine.Mine", "AutoModelForImageTextToText": "mine.Mine"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Mine", None]})
    assert type(load_model(str(folder), device="cpu").model).__module__.startswith("transformers.")
    assert not (folder / "ran").exists()


def test_the_planted_code_would_run_if_it_were_trusted(folder: Path) -> None:
    edit(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    with pytest.raises(AttributeError):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert (folder / "ran").exists()


@pytest.mark.parametrize("names", [("pytorch_model.bin",), ("pytorch_model.bin", "pytorch_model.bin.index.json"),
                                   ("model.pt",), ("model.safetensors",),
                                   ("pytorch_model.bin", "model.safetensors.index.json")])  # fmt: skip
def test_pickled_weights_are_never_read(folder: Path, names: tuple[str, ...]) -> None:
    (folder / "model.safetensors").unlink()
    for name in names:
        (folder / name).write_bytes(INDEX.encode() if name.endswith(".json") else pickle.dumps(Payload(folder / "ran")))
    with pytest.raises(ModelError, match="safetensors"):
        load_model(str(folder), device="cpu")
    assert not (folder / "ran").exists()
