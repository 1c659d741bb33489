"""Loading models: from a folder by the ordinary code, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from vtw_search.errors import ModelError
from vtw_search.evaluation.model import REFERENCE_MODEL, load_model
from vtw_search.evaluation.weights import settings_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REFERENCE_MODEL, tmp_path / "my-model"))


def test_the_reference_model_loads_by_the_ordinary_calls_and_is_small() -> None:
    model = AutoModelForImageTextToText.from_pretrained(REFERENCE_MODEL)
    processor = AutoProcessor.from_pretrained(REFERENCE_MODEL)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert model.dtype == torch.float32
    assert model.config.text_config.num_hidden_layers == 12
    assert model.config.image_seq_length >= 64
    assert processor.tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert sum(path.stat().st_size for path in REFERENCE_MODEL.iterdir()) <= 16e6


def test_a_folder_loads_like_the_reference_and_is_named_without_its_place(folder: Path) -> None:
    mine, reference = load_model(str(folder), device="cpu"), load_model("reference", device="cpu")
    assert mine.facts.fingerprint.same_shape(reference.facts.fingerprint)
    assert mine.facts.fingerprint.id == "my-model"
    assert mine.identity["tensors"] == reference.identity["tensors"]
    assert mine.identity["settings"] == reference.identity["settings"]
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": 3, "eos_token_id": 2}))
    assert load_model(str(folder), device="cpu").identity["settings"] != reference.identity["settings"]


@pytest.mark.parametrize(
    "name",
    [
        "config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "tokenizer.model", "vocab.txt", "merges.txt", "qwen.tiktoken",
    ],
)  # fmt: skip
def test_every_file_that_decides_what_weights_compute_is_part_of_the_identity(folder: Path, name: str) -> None:
    (folder / name).touch()
    before = settings_digest(folder)
    with (folder / name).open("ab") as stream:
        stream.write(b"x")
    assert settings_digest(folder) != before


@pytest.mark.parametrize("dtype,attention", [("float32", "eager"), ("bfloat16", "sdpa"), ("float16", "sdpa")])
def test_dtype_and_attention_are_part_of_the_identity(dtype: str, attention: str) -> None:
    loaded = load_model("reference", device="cpu", dtype=dtype, attention=attention)
    assert str(loaded.model.dtype) == f"torch.{dtype}"
    assert loaded.facts.attention == attention
    assert (loaded.identity["dtype"], loaded.identity["attention"]) == (dtype, attention)


def test_weights_that_are_not_safetensors_are_refused(folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(str(folder))


def test_missing_models_and_processors_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match="must be loadable"):
        load_model(str(tmp_path / "none"))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="must be loadable"):
        load_model(str(folder))


def test_a_package_that_a_processor_needs_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        text = "\nXProcessor requires the Torchvision library but it was not found in your environment. Check the page"
        raise ImportError(text)

    monkeypatch.setattr(AutoProcessor, "from_pretrained", refuse)
    with pytest.raises(
        ModelError, match=r"need their packages.*Torchvision.*not found in your environment; install it"
    ):
        load_model(str(folder))


def test_a_truncated_weights_file_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="must be loadable"):
        load_model(str(folder))


def test_another_architecture_is_refused_by_name(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "blip"}))
    with pytest.raises(ModelError):
        load_model(str(folder))


def test_weights_that_are_missing_are_refused_instead_of_drawn_at_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layers.11.mlp" not in name}
    assert len(kept) == len(weights) - 3
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"3 weight.*layers\.11\.mlp"):
        load_model(str(folder))
