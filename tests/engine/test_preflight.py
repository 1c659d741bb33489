"""Every sample that is not usable is told before anything is measured: not taken by the processor, or too long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from transformers import BloomConfig, CLIPVisionConfig, Gemma3TextConfig, LlamaConfig, LlavaConfig, Qwen2VLConfig

from experiments.model_coverage.families import find
from tests.adapters.processors import FAMILIES
from vtw_search.adapters import Adapter, find_adapter, most_positions
from vtw_search.config import load_config
from vtw_search.driver import run_search
from vtw_search.engine import check_images, check_prompts
from vtw_search.errors import DataWarning, ModelError, TaskError
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import Sample, digits


@dataclass(frozen=True)
class Plain:
    """A picture of a size, a gradient unless it is blank."""

    width: int
    height: int
    blank: bool = False

    def open(self) -> Image.Image:
        size = self.width, self.height
        return Image.new("RGB", size) if self.blank else Image.linear_gradient("L").resize(size).convert("RGB")

    def size(self) -> tuple[int, int]:
        raise AssertionError("the header does not say how a picture stands")

    def digest(self) -> str:
        return f"{self.width}x{self.height}"


def sample(name: str, prompt: str = "what?", *sizes: tuple[int, int]) -> Sample:
    images = tuple(Plain(*size) for size in sizes or [(64, 64)])
    return Sample(name, images, prompt, ("a",), "exact_match", name)


def preflight(loaded: LoadedModel, samples: list[Sample], max_new_tokens: int = 8) -> None:
    check_prompts(loaded, samples, check_images(samples), max_new_tokens)


def test_images_of_one_colour_are_counted_and_told_of(recwarn: pytest.WarningsRecorder) -> None:
    blank = replace(sample("1"), images=(Plain(64, 64, blank=True), Plain(9, 9, blank=True)))
    check_images([blank, sample("2")])
    [told] = [str(each.message) for each in recwarn if each.category is DataWarning]
    assert told.startswith("2 of 3 images show one colour and nothing else, such as that of sample '1'")
    recwarn.clear()
    check_images(list(digits.load_pool("holdout"))[:3])
    assert not [each for each in recwarn if each.category is DataWarning]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture
def tokens(loaded: LoadedModel) -> Callable[[Sample], int]:
    def count(each: Sample) -> int:
        images = [image.open() for image in each.images]
        return int(loaded.adapter.encode(loaded.processor, [each.prompt], [images])["input_ids"].shape[1])

    return count


def test_a_prompt_beyond_the_positions_is_refused_and_one_that_fills_them_is_not(
    loaded: LoadedModel, tokens: Callable[[Sample], int]
) -> None:
    long = sample("long", "what number is it? " * 60)
    room = 512 - tokens(long)
    assert room > 0
    samples = [sample("short"), long, sample("other", "what?", (64, 64), (64, 64))]
    preflight(loaded, samples, room)
    with pytest.raises(
        TaskError, match=r"'long'.* the 512 positions .*got '\d+ tokens and \d+ for.*max_new_tokens"
    ) as refused:
        preflight(loaded, samples, room + 1)
    assert f"'{512 - room} tokens and {room + 1} for the answer'" in str(refused.value)


def test_the_longest_prompt_of_every_size_is_passed_and_no_more(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, encode = list[str](), Adapter.encode

    def noted(self: Adapter, processor: Any, prompts: Any, images: Any) -> Any:
        passed.extend(f"{prompt} {images[0][0].size}" for prompt in prompts)
        return encode(self, processor, prompts, images)

    monkeypatch.setattr(Adapter, "encode", noted)
    sizes = [(64, 64), (32, 64), (64, 32)]
    samples = [sample(str(n), "word " * (n % 40), sizes[n % 3]) for n in range(120)]
    preflight(loaded, samples)
    assert sorted(passed) == sorted(f"{'word ' * 39} {size}" for size in sizes)


@pytest.mark.usefixtures("without_video")
def test_a_sample_that_the_processor_cannot_take_is_named() -> None:
    model, processor = find("qwen2_vl").build(), FAMILIES["qwen2_vl"].build()
    adapter = find_adapter(model)
    loaded = LoadedModel(model, processor, adapter, adapter.facts(model), {})
    preflight(loaded, [sample("square"), sample("wide", "what?", (120, 40))], 8)
    with pytest.raises(
        TaskError, match=r"'banner': the processor must.*got 'images of 1200x4'; ValueError: .*resize"
    ) as refused:
        preflight(loaded, [sample("square"), sample("banner", "what?", (1200, 4))], 8)
    assert isinstance(refused.value.__cause__, ValueError)


def test_what_is_wrong_with_the_model_is_not_blamed_on_a_sample(loaded: LoadedModel) -> None:
    class Untemplated:
        chat_template = None
        tokenizer = loaded.processor.tokenizer

    class NoPlainPrompt(Adapter):
        class_name = "x"

    broken = replace(loaded, processor=Untemplated(), adapter=NoPlainPrompt())
    with pytest.raises(ModelError, match="must have a chat template"):
        preflight(broken, [sample("1")])


def test_a_prompt_with_an_image_too_many_is_named(loaded: LoadedModel) -> None:
    with pytest.raises(TaskError, match=r"sample '2': a prompt's placeholders .*got '<image 1><image 2> y'; write"):
        preflight(loaded, [sample("1"), sample("2", "<image 1><image 2> y")])


def text(positions: int, **rope: Any) -> LlamaConfig:
    scaled = {"rope_parameters": {"rope_theta": 1e4, **rope}} if rope else {}
    return LlamaConfig(num_hidden_layers=1, max_position_embeddings=positions, **scaled)


YARN = {"rope_type": "yarn", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    "config,expected",
    [
        (text(512), 512),
        (text(4096, rope_type="linear", factor=4.0), 16384),
        (text(4096, rope_type="dynamic", factor=2.0), 8192),
        (text(32768, **YARN), 131072),
        (text(131072, **YARN, original_max_position_embeddings=32768), 131072),
        (text(131072, **LLAMA3, original_max_position_embeddings=8192), 131072),
        (Gemma3TextConfig(max_position_embeddings=1024), 1024),
        (BloomConfig(), None),
        (LlavaConfig(vision_config=CLIPVisionConfig(), text_config=text(77)), 77),
        (Qwen2VLConfig(text_config={"max_position_embeddings": 99}), 99),
    ],
)
def test_positions_are_those_of_the_text_model_with_their_scaling(config: Any, expected: int | None) -> None:
    assert most_positions(config) == expected


def test_a_search_refuses_before_it_measures(tmp_path: Path) -> None:
    asked = load_config("task=digits_read", "tracking=none", "model.device=cpu", f"runs={tmp_path}")
    tasks = {"digits_read": asked.named_tasks["digits_read"].model_copy(update={"max_new_tokens": 512})}
    config = asked.model_copy(update={"tasks": tasks, "task": None})
    with pytest.raises(TaskError, match=r"sample '\w+-\d+': prompt and answer must fit the 512 positions"):
        run_search(config, Console(file=(tmp_path / "output.txt").open("w")))
    assert [path.name for path in tmp_path.iterdir()] == ["output.txt"]
