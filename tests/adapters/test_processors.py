"""Images through the real processor of every family with an adapter, and what comes out through its tiny model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from transformers.utils import is_num2words_available, is_torchvision_available

from experiments.model_coverage.families import find
from tests.adapters.processors import FAMILIES
from vtw_search.adapters import find_adapter
from vtw_search.conformance import check_model, processor_probes
from vtw_search.errors import RuntimeUseError

# Family -> the package without which its processor cannot be built, not even for images.
UNTESTED = {} if is_torchvision_available() else {"mistral3": "Torchvision"}
TESTED = [name for name in FAMILIES if name not in UNTESTED]
PROMPTS = ["What is this?", "Describe both images, please.", "What is the capital of France?"]


def picture(width: int, height: int) -> Any:
    return Image.effect_noise((width, height), 80).convert("RGB")


def pictures(count: int) -> list[list[Any]]:
    return [[picture(60, 60)], [picture(90, 50), picture(50, 70)], []][:count]


@pytest.mark.usefixtures("without_video")
@pytest.mark.parametrize("name", TESTED)
def test_a_batch_of_the_processor_fits_the_model(name: str) -> None:
    model, processor = find(name).build(), FAMILIES[name].build()
    adapter = find_adapter(model)
    rows = pictures(2 if adapter.needs_image else 3)
    prompts = PROMPTS[: len(rows)]
    batch = adapter.encode(processor, prompts, rows)

    ids, real = batch["input_ids"], batch["attention_mask"].bool()
    assert real[:, -1].all()
    assert (~real).any(), "the rows differ in length"
    assert torch.equal(real, real.int().cummax(1).values.bool()), "left-padded"
    assert torch.equal(ids == processor.tokenizer.pad_token_id, ~real)
    begins = (ids == processor.tokenizer.bos_token_id).sum(1)
    assert (begins == 1).all() if FAMILIES[name].begins else (begins <= 1).all()
    for row, prompt in zip(processor.tokenizer.batch_decode(ids), prompts, strict=True):
        assert prompt.lower().replace(" ", "") in row.replace(" ", "")

    visual = adapter.visual_mask(model, batch)
    assert visual is not None
    assert visual.any(1).tolist() == [bool(row) for row in rows]
    with torch.no_grad():
        logits = model(**batch).logits  # which counts features and placeholders
    assert logits.shape[:2] == ids.shape
    assert logits[real].isfinite().all()


@pytest.mark.usefixtures("without_video", "few_steps")
@pytest.mark.parametrize("name", TESTED)
def test_the_contracts_hold_on_what_the_processor_gives(name: str) -> None:
    model, processor = find(name).build(), FAMILIES[name].build()
    probes = processor_probes(find_adapter(model), processor, torch.device("cpu"))
    report = check_model(model, probes, layers=[3])
    assert report.passed, report.problem


@pytest.mark.usefixtures("without_video")
@pytest.mark.parametrize("name", ["llava", "vipllava", "video_llava"])
def test_the_prompt_without_a_template_is_that_of_the_template(name: str) -> None:
    adapter = find_adapter(find(name).build())
    templated, plain = (replace(FAMILIES[name], templated=given).build() for given in (True, False))
    expected, found = (adapter.encode(processor, PROMPTS, pictures(3)) for processor in (templated, plain))
    assert torch.equal(found["input_ids"], expected["input_ids"])


def test_a_row_without_the_image_that_it_needs_is_refused() -> None:
    adapter = find_adapter(find("paligemma").build())
    with pytest.raises(RuntimeUseError, match="must have an image"):
        adapter.encode(FAMILIES["paligemma"].build(), PROMPTS, pictures(3))


@pytest.mark.parametrize("name", UNTESTED)
def test_what_is_untested_cannot_be_built_here(name: str) -> None:
    with pytest.raises(ImportError, match=UNTESTED[name]):
        FAMILIES[name].build()


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is here")
def test_video_needs_torchvision() -> None:
    with pytest.raises(ImportError, match="Torchvision"):
        transformers.BaseVideoProcessor()


@pytest.mark.skipif(is_num2words_available(), reason="num2words is here")
def test_smolvlm_needs_num2words_for_video() -> None:
    with pytest.raises(ImportError, match="num2words"):
        FAMILIES["smolvlm"].build()
