"""Fixtures shared by all tests: a tiny random LLaVA and inputs for it. Nothing here needs a network or a GPU."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from experiments.model_coverage.run import NAMED
from tests.servers import Server, postgres
from vtw_search.conformance import bench
from vtw_search.evaluation.model import REFERENCE_MODEL

# How long a test may take before it is ended, with its stack printed: many times what it takes on two cores.
TIMEOUT_S, SLOW_TIMEOUT_S = 120, 600
FOLDER_TIMEOUTS_S = {"slow": 1200}

IMAGE_TOKEN = 3
PATCHES = 9
LAYERS = 6


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test its timeout, and begin with the longest ones, so that all processes end at about one time."""
    for item in items:
        usual = SLOW_TIMEOUT_S if item.get_closest_marker("slow") else TIMEOUT_S
        item.add_marker(pytest.mark.timeout(FOLDER_TIMEOUTS_S.get(item.path.parent.name, usual)))
    items.sort(key=lambda item: item.path.parent.name not in FOLDER_TIMEOUTS_S)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _the_shipped_model_is_read_once() -> Iterator[None]:
    """Give every test that loads the shipped model a copy of its own."""
    read, known = AutoModelForImageTextToText.from_pretrained, dict[str, Any]()

    def from_pretrained(source: Any, **settings: Any) -> Any:
        if source != str(REFERENCE_MODEL):
            return read(source, **settings)
        key = repr(sorted(settings.items()))
        if key not in known:
            known[key] = read(source, **settings)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoModelForImageTextToText, "from_pretrained", from_pretrained)
        yield


@pytest.fixture(scope="module")
def few_steps() -> Iterator[None]:
    """Let the contracts generate answers of three tokens: the slow tests of all families generate the usual ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "STEPS", 3)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server of the module's own."""
    with postgres() as running:
        yield running


@pytest.fixture
def without_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processors be built without the packages that they need for video: an image never gets there."""
    # In this order: transformers' processors look their parts up in a module that takes the place of `transformers`.
    from transformers.models.smolvlm import processing_smolvlm
    from transformers.video_processing_utils import VideoProcessorMixin

    monkeypatch.setattr(sys.modules["transformers"], "VideoProcessorMixin", VideoProcessorMixin, raising=False)
    monkeypatch.setattr(processing_smolvlm, "num2words", str)


def usual_ones_fast(families: Iterable[str]) -> list[Any]:
    """Return families as parameters: those that the runtime was written for, and the rest with the slow tests."""
    return [pytest.param(name, marks=() if name in NAMED else pytest.mark.slow) for name in families]


def make_tiny_llava(attention: str = "sdpa", layers: int = LAYERS) -> LlavaForConditionalGeneration:
    """Return a random LLaVA with grouped queries, re-randomised so that its logits depend on what it sees."""
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4
    )
    text = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=60, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE_TOKEN, image_seq_length=PATCHES)
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    torch.nn.init.normal_(model.model.language_model.embed_tokens.weight)
    torch.nn.init.normal_(model.model.multi_modal_projector.linear_2.weight, std=0.5)
    return model


@pytest.fixture(scope="session", params=["eager", "sdpa"])
def tiny_llava(request: pytest.FixtureRequest) -> LlavaForConditionalGeneration:
    """A tiny random LLaVA under each attention implementation."""
    return make_tiny_llava(request.param)


def make_inputs(images_per_row: tuple[int, ...], text: int = 5, seed: int = 0) -> dict[str, Any]:
    """Return a left-padded batch whose rows hold the given numbers of images, between text tokens."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, images in enumerate(images_per_row):
        words = torch.randint(4, 60, (text + number,), generator=generator).tolist()
        rows.append([1, 7, *([IMAGE_TOKEN] * PATCHES + [5]) * images, *words])
    length = max(len(row) for row in rows)
    input_ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    if sum(images_per_row):
        inputs["pixel_values"] = torch.randn(sum(images_per_row), 3, 12, 12, generator=generator)
    return inputs
