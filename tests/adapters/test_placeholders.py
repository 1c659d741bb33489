"""Placeholders in prompts: images stand where they do, through every family's processor, or the prompt is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from tests.adapters.processors import FAMILIES
from tests.adapters.test_processors import TESTED, picture
from vtw_search.adapters import check_prompt, find_adapter
from vtw_search.adapters.prompts import prompt_parts
from vtw_search.errors import RuntimeUseError
from vtw_search.evaluation.model import load_model
from vtw_search.evaluation.tasks import Sample

TEMPLATED = [name for name in TESTED if FAMILIES[name].templated]
SPELLINGS = ["<image>", "<image 1>", "<image_1>", "<image1>", "<Image 1>", "<img>", "<|image|>", "<|image_1|>", "[IMG]"]


class Rendered:
    """A processor whose chat template writes `#` for an image, where it stands or in front."""

    chat_template = "of a test"

    def __init__(self, in_front: bool = False) -> None:
        self.in_front = in_front

    def apply_chat_template(self, chat: list[dict[str, Any]], tokenize: bool) -> str:
        assert not tokenize
        parts = chat[0]["content"]
        if self.in_front:
            parts = sorted(parts, key=lambda part: part["type"] != "image")
        return "".join(part.get("text", "#") for part in parts)


def order_of(name: str, prompt: str, images: int) -> str:
    """Return the prompt as the model gets it: `@` for each block of visual tokens, and the letters x, y and z."""
    model, processor = find(name).build(), FAMILIES[name].build()
    adapter = find_adapter(model)
    batch = adapter.encode(processor, [prompt], [[picture(60, 60)] * images])
    visual = adapter.visual_mask(model, batch)
    assert visual is not None
    with torch.no_grad():
        assert model(**batch).logits.isfinite().all()
    texts = [
        "@" if seen else processor.tokenizer.decode([number])
        for number, seen in zip(batch["input_ids"][0].tolist(), visual[0].tolist(), strict=True)
    ]
    kept = "".join(text for text in texts if text in ("@", "x", "y", "z"))
    while "@@" in kept:
        kept = kept.replace("@@", "@")
    return kept


@pytest.mark.usefixtures("without_video")
@pytest.mark.parametrize("name", TEMPLATED)
def test_an_image_stands_where_its_placeholder_is(name: str) -> None:
    assert order_of(name, "x <image 1> y", 1) == "x@y"
    assert order_of(name, "x <image 2> y <image 1> z", 2) == "x@y@z"


@pytest.mark.usefixtures("without_video")
@pytest.mark.parametrize("name", TESTED)
def test_a_placeholder_in_front_is_the_same_as_none(name: str) -> None:
    processor, adapter = FAMILIES[name].build(), find_adapter(find(name).build())
    plain, spelled = (adapter.encode(processor, [text], [[picture(60, 60)]]) for text in ("what?", "<image>\nwhat?"))
    assert torch.equal(plain["input_ids"], spelled["input_ids"])


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_an_image_is_known(spelling: str) -> None:
    assert prompt_parts(Rendered(), f"x {spelling} y", 1) == ["x ", 0, " y"]
    assert prompt_parts(Rendered(in_front=True), f"{spelling} y", 1) == [0, "y"]


def test_images_with_numbers_are_given_in_that_order() -> None:
    assert prompt_parts(Rendered(), "<image 2><image 1>, which?", 2) == [1, 0, ", which?"]
    assert prompt_parts(Rendered(), "a <image> b <image>", 2) == ["a ", 0, " b ", 1]
    assert prompt_parts(Rendered(), "which?", 2) == [0, 1, "which?"]


@pytest.mark.parametrize(
    "prompt,images",
    [
        ("<image> <image> y", 1), ("x <image>", 2), ("<image 2> y", 1), ("<image 0> y", 1),
        ("<image 1> <image 1> y", 2), ("<image> <image 2> y", 2), ("x <image>", 0),
    ],
)  # fmt: skip
def test_placeholders_that_are_not_one_for_each_image_are_refused(prompt: str, images: int) -> None:
    with pytest.raises(RuntimeUseError, match=r"for each of its images once.*write <image> where an image stands"):
        check_prompt(Rendered(), prompt, images)


@pytest.mark.parametrize(
    "other",
    [
        "<|image_pad|>", "<|vision_start|>", "<start_of_image>", "<image_soft_token>", "<IMG_CONTEXT>", "</img>",
        "<video>", "<video 1>", "<|video_pad|>", "<image_placeholder>", "<fake_token_around_image>", "[IMG_BREAK]",
        "<|media_pad|>",
    ],
)  # fmt: skip
def test_what_stands_around_images_in_some_family_is_refused_by_all(other: str) -> None:
    with pytest.raises(RuntimeUseError, match=r"must not hold the placeholder .*write <image> where"):
        check_prompt(Rendered(), f"x {other} <image> y", 1)


@pytest.mark.usefixtures("without_video")
@pytest.mark.parametrize("name", TESTED)
def test_a_familys_own_tokens_never_come_out_of_a_text(name: str) -> None:
    processor = FAMILIES[name].build()
    own = {getattr(processor, token, None) for token in ("image_token", "video_token", "boi_token", "eoi_token")} - {
        None
    }
    for token in own:
        try:
            parts = prompt_parts(processor, f"{token} y", 1)
        except RuntimeUseError:
            continue
        assert parts == [0, "y"]


@pytest.mark.parametrize(
    "prompt",
    ["is 3 < image size > 2?", 'what does <img src="a.png"> do?', "<https://a.b/image.png>", "[image of a cat]", "<b>"],
)
def test_what_is_no_placeholder_stays(prompt: str) -> None:
    assert prompt_parts(Rendered(), prompt, 1) == [0, prompt]


def test_a_template_that_puts_images_in_front_refuses_another_place() -> None:
    loaded = load_model("reference", device="cpu")
    for processor in (Rendered(in_front=True), loaded.processor, replace(FAMILIES["llava"], templated=False).build()):
        with pytest.raises(RuntimeUseError, match=r"cannot put images into the middle.*before the text"):
            check_prompt(processor, "x <image 1> y", 1)
        check_prompt(processor, "<image 1><image 2> y", 2)


def test_a_prompt_whose_placeholders_were_text_once_is_another_sample() -> None:
    plain, placed = (Sample("1", (), f"{text}what?", ("a",), "exact_match", "c").digest() for text in ("", "<image 1>"))
    # What was written down when placeholders of other families were plain text.
    assert plain == "97d1dadaa04b1a26850f9a33ca8454d508e017cc136377aa12a00ce1beb32606"
    assert placed != "41402185f4efa2404c434a64d6b3d71e753bbd40f3de1105d0fe1e2950446a69"
