"""The check itself: each planted fault must fail the contract that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from experiments.model_coverage.tiny import TinyFamily
from vtw_search.adapters import Adapter, LayerCache, layer_caches
from vtw_search.adapters.glm4v import Glm4vAdapter
from vtw_search.adapters.parts import IMAGE, VIDEO
from vtw_search.conformance import Report, cache_size, check_model
from vtw_search.conformance.bench import WORDS
from vtw_search.runtime import apply, removal, stages
from vtw_search.runtime.masking import masked_from
from vtw_search.runtime.removal import TokenRemoval
from vtw_search.runtime.stages import ReadyStage
from vtw_search.tokens import select

pytestmark = pytest.mark.usefixtures("few_steps")

FAMILIES = ("llava", "qwen2_5_vl", "gemma3")
# What one period of sliding layers shows, a second one shows again.
LAYERS = 6


@cache
def short_family(name: str) -> TinyFamily:
    """The family with as few layers as have one of each kind."""
    family = find(name)

    def config() -> PreTrainedConfig:
        made = family.config()
        text: Any = made.get_text_config(decoder=True)
        text.num_hidden_layers = LAYERS
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:LAYERS]
        return made

    return replace(family, config=config)


def report_on(name: str) -> Report:
    family = short_family(name)
    return check_model(family.build(), family_probes(family), layers=[3])


def failed(report: Report) -> set[str]:
    return {finding.contract[0] for finding in report.findings if not finding.passed}


@pytest.mark.parametrize("name", FAMILIES)
def test_without_a_fault_everything_passes(name: str) -> None:
    assert failed(report_on(name)) == set()


def with_answer(monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Let every adapter's answer which tokens are visual be changed."""
    right = Adapter.visual_mask

    def wrong(self: Any, model: Any, inputs: Any) -> torch.Tensor | None:
        visual = right(self, model, inputs)
        return None if visual is None else change(visual.clone())

    monkeypatch.setattr(Adapter, "visual_mask", wrong)


def without_the_last(visual: torch.Tensor) -> torch.Tensor:
    visual[0, visual[0].nonzero()[-1]] = False
    return visual


def with_the_token_before(visual: torch.Tensor) -> torch.Tensor:
    visual[0, visual[0].nonzero()[0] - 1] = True
    return visual


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "change,problem",
    [(without_the_last, "misses 1"), (with_the_token_before, "takes 1 tokens"), (lambda _: None, "misses")],
)
def test_an_adapter_that_does_not_find_the_visual_tokens(
    name: str, change: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime does right what it is told, so that no other contract needs to fail."""
    with_answer(monkeypatch, change)
    report = report_on(name)
    assert "0" in failed(report)
    assert problem in str(report.problem)


def test_video_tokens_that_are_written_as_image_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Glm4vAdapter, "modalities", (IMAGE, VIDEO))
    report = report_on("glm4v")
    assert failed(report) == {"0"}
    assert "one video" in str(report.problem)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_off_by_one_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = apply.ActivePolicy._wanted

    def one_later(self: Any) -> tuple[ReadyStage, ...]:
        def later(ready: ReadyStage) -> ReadyStage:
            stage = ready.stage.model_copy(update={"layer": ready.layer + 1})
            return replace(ready, stage=stage)

        return tuple(later(ready) for ready in wanted(self))

    monkeypatch.setattr(apply.ActivePolicy, "_wanted", one_later)
    assert {"2", "3"} <= failed(report_on(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_shifted_position_ids(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gather = removal.gather_all

    def recounted(value: Any, index: torch.Tensor, length: int, dim: int) -> Any:
        return gather(value, torch.arange(index.shape[1]).expand_as(index), length, dim)

    monkeypatch.setattr(removal, "gather_all", recounted)
    assert {"2", "3", "4"} <= failed(report_on(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_one_wrong_token_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_visual_token_instead_of_the_first_text_token(keep: torch.Tensor) -> Any:
        wrong = keep.clone()
        for row in range(len(keep)):
            if not keep[row].all():
                wrong[row, keep[row].int().argmax()] = False
                wrong[row, (~keep[row]).nonzero()[-1]] = True
        return select(wrong)

    monkeypatch.setattr(stages, "select", one_visual_token_instead_of_the_first_text_token)
    assert {"2", "3"} <= failed(report_on(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mask_without_a_shortened_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_mask(self: TokenRemoval, stack: ExitStack) -> None:
        wanted = self.current()

        def begin(_: Any, __: Any, kwargs: Any) -> None:
            visual = self.adapter.visual_mask(self.model, kwargs)
            if wanted and visual is not None:
                layers = self.adapter.decoder_layers(self.model)
                stack.enter_context(masked_from(layers, wanted[0].layer, visual, self.arguments))

        stack.callback(self.model.register_forward_pre_hook(begin, with_kwargs=True).remove)

    monkeypatch.setattr(TokenRemoval, "register", only_mask)
    assert {"2", "3"} <= failed(report_on(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_leaked_hook(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    register = TokenRemoval.register

    def leaky(self: TokenRemoval, stack: ExitStack) -> None:
        register(self, stack)
        self.model.register_forward_hook(lambda *_: None)

    monkeypatch.setattr(TokenRemoval, "register", leaky)
    assert failed(report_on(name)) == {"6"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mask_that_is_not_cut_for_padding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fillers of shorter rows that everybody sees: rows would depend on their neighbours."""
    crop = removal.crop_mask

    def without_fillers(mask: Any, queries: Any, keys: Any, *rest: Any) -> Any:
        return crop(mask, queries, type(keys)(keys.index, None), *rest)

    monkeypatch.setattr(removal, "crop_mask", without_fillers)
    assert failed(report_on(name)) & {"2", "3", "5"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_later_turn_that_sees_one_key_too_few(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    crop = removal.crop_mask

    def without_the_first_key(mask: Any, queries: Any, keys: Any, total: int, query_length: int) -> Any:
        if query_length == WORDS and keys.length > query_length:
            hidden = torch.zeros_like(keys.index, dtype=torch.bool)
            hidden[:, keys.index.shape[1] - query_length - 1] = True
            keys = type(keys)(keys.index, hidden if keys.filler is None else keys.filler | hidden)
        return crop(mask, queries, keys, total, query_length)

    monkeypatch.setattr(removal, "crop_mask", without_the_first_key)
    assert failed(report_on(name)) == {"3"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cache_of_more_bytes_than_the_closed_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_values(config: Any) -> list[LayerCache]:
        return [replace(shape, width=shape.width // 2) for shape in layer_caches(config)]

    monkeypatch.setattr(cache_size, "layer_caches", without_values)
    report = report_on(name)
    assert failed(report) == {"3"}
    assert "bytes at K = 3" in str(report.problem)


@pytest.mark.parametrize("name", FAMILIES)
def test_released_entries_that_stay_in_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = DynamicLayer.update

    def update(self: Any, keys: torch.Tensor, values: torch.Tensor, *rest: Any, **named: Any) -> Any:
        result = stored(self, keys, values, *rest, **named)
        self.keys = torch.cat([self.keys, self.keys], dim=-2)[..., : self.keys.shape[-2], :]
        return result

    monkeypatch.setattr(DynamicLayer, "update", update)
    report = report_on(name)
    assert failed(report) == {"3"}
    assert "in memory" in str(report.problem)
