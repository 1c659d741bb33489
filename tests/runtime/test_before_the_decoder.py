"""Stages before the decoder against the unpatched model on the shortened embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from experiments.model_coverage.families import find
from vtw_search import Policy, Stage, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance.bench import Bench
from vtw_search.conformance.probes import Probe
from vtw_search.errors import PolicyError
from vtw_search.policies import ScorerChoice
from vtw_search.runtime.deviation import deviation
from vtw_search.runtime.masking import masked_from

STEPS = 5


def select(keep: float | int, position: Any = "keep") -> Stage:
    return Stage(
        site="vision", layer=0, operator="select", keep=keep, position=position, scorer=ScorerChoice(name="uniform")
    )


def downsample(keep: float, mode: str = "mean") -> Stage:
    return Stage(site="vision", layer=0, operator="downsample", keep=keep, position="recount", options={"mode": mode})


def merged_embeddings(model: Any, inputs: Any) -> torch.Tensor:
    """Return what enters decoder layer 0."""
    found: list[torch.Tensor] = []
    layer = find_adapter(model).decoder_layers(model)[0]
    hook = layer.register_forward_pre_hook(lambda _, args, kwargs: found.append(args[0]), with_kwargs=True)
    with torch.no_grad():
        model(**inputs, use_cache=False)
    hook.remove()
    return found[0]


@pytest.mark.parametrize(
    "stage", [select(0.34, "recount"), select(4, "recount"), downsample(0.5), downsample(0.1, "stride")]
)
@pytest.mark.parametrize("name", ["llava", "vipllava"])
def test_a_shortened_prompt_equals_the_model_on_short_embeddings(name: str, stage: Stage) -> None:
    family = find(name)
    model: Any = family.build()
    inputs = family.inputs([("small",)])
    embeds, visual = merged_embeddings(model, inputs), inputs["input_ids"][0] == 3
    places = visual.nonzero()[:, 0]
    image = embeds[0, places]
    if stage.operator == "select":
        count = 3 if isinstance(stage.keep, float) else 4
        short = image[[int((i + 0.5) * 9 / count) for i in range(count)]]
    else:
        side = 2 if stage.keep == 0.5 else 1
        grid = image.T.reshape(-1, 3, 3)
        short = (
            functional.adaptive_avg_pool2d(grid, side).flatten(1).T if stage.options["mode"] == "mean" else image[:1]
        )
    first, last = int(places[0]), int(places[-1])
    shortened = torch.cat([embeds[0, :first], short, embeds[0, last + 1 :]])[None]
    expected = model.language_model if hasattr(model, "language_model") else model.model.language_model
    given = {"max_new_tokens": STEPS, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with apply_policy(model, Policy(stages=(stage,))):
        found = model.generate(**inputs, **given)
    tokens = found.sequences[:, inputs["input_ids"].shape[1] :]
    table = model.get_input_embeddings()
    whole = torch.cat([shortened, table(tokens)], dim=1)
    with torch.no_grad():
        hidden = expected(inputs_embeds=whole, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden)[:, shortened.shape[1] - 1 : -1]
    assert deviation(torch.stack(found.logits, dim=1), logits) <= 1e-5


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl", "paligemma", "gemma3", "llava_next"])
def test_kept_positions_equal_masking_from_layer_0(name: str) -> None:
    family = find(name)
    model: Any = family.build()
    adapter = find_adapter(model)
    inputs = family.inputs([("small",) * family.max_images, ("small",)])
    visual = adapter.visual_mask(model, inputs)
    assert visual is not None
    bench = Bench(model, adapter, [Probe("two rows", inputs)], 1e-5)
    hidden = visual.clone()
    for row in range(len(visual)):
        columns = visual[row].nonzero()[:, 0]
        wanted = max(1, int(0.34 * len(columns) + 0.5))
        hidden[row, columns[[int((i + 0.5) * len(columns) / wanted) for i in range(wanted)]]] = False
    with apply_policy(model, Policy(stages=(select(0.34),))):
        cached = bench.generate(inputs)
        cache = bench.cache(inputs)
        assert cache.get_seq_length() == inputs["input_ids"].shape[1]
    lengths = {layer.keys.shape[-2] for layer in cache.layers if not layer.is_sliding}
    assert max(lengths) < inputs["input_ids"].shape[1]
    with masked_from(bench.stack, 0, hidden, adapter.layer_arguments):
        expected = bench.generate(inputs, cached.tokens, cached=False)
    assert deviation(cached.logits, expected.logits) <= 1e-5


@pytest.mark.parametrize(
    "name,stage,reason",
    [
        (
            "qwen3_vl",
            select(0.5),
            "features enter its visual tokens between layers; prune or withdraw",
        ),
        ("qwen2_5_vl", select(0.5, "recount"), "M-RoPE.*position=keep"),
        ("gemma3", select(0.5, "recount"), "windows are defined on the original positions; position=keep"),
        ("llava_next", downsample(0.5), "does not know the grid"),
    ],
)
def test_what_a_family_cannot_do_is_refused_with_the_alternative(name: str, stage: Stage, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason), apply_policy(find(name).build(), Policy(stages=(stage,))):
        pass


def prune(layer: int, keep: Any, scorer: str, **options: Any) -> Stage:
    return Stage(layer=layer, operator="prune", keep=keep, scorer=ScorerChoice(name=scorer, options=options))


@pytest.mark.parametrize(
    "stages,reason",
    [
        ((prune(4, 0.5, "uniform"), prune(3, 0.5, "uniform")), "ordered by layer"),
        ((prune(3, 0.5, "uniform"), prune(3, 0.5, "uniform")), "a layer of its own"),
        ((Stage(layer=3, operator="withdraw"), prune(4, 0.5, "uniform")), "no stage may follow 'withdraw'"),
        ((Stage(layer=3, operator="prune", keep=0.5),), "needs a scorer"),
        ((Stage(layer=3, operator="prune", scorer=ScorerChoice(name="uniform")),), "needs keep"),
        ((Stage(layer=3, operator="withdraw", keep=0.5),), "takes no keep"),
        ((prune(3, "elbow", "text_relevance"),), "one of knee, second_difference, lof"),
        ((prune(3, "knee", "uniform"),), "decide no budget"),
        ((prune(3, 0.5, "text_to_visual", queries="first"),), "one of last, instruction"),
        ((prune(3, 0.5, "cls_attention"),), None),
        ((Stage(layer=3, operator="select", keep=0.5, scorer=ScorerChoice(name="uniform")),), "site=vision"),
        ((select(0.5).model_copy(update={"scorer": ScorerChoice(name="text_to_visual")}),), "no decoder attention"),
        ((prune(3, 0.5, "uniform").model_copy(update={"position": "recount"}),), "a decoder stage keeps positions"),
        ((prune(7, 0.5, "uniform"),), r"1\.\.6"),
    ],
)
def test_stages_that_break_a_rule_are_refused_before_anything_runs(stages: Any, reason: str | None) -> None:
    model = find("llava").build()
    if reason is None:
        with apply_policy(model, Policy(stages=stages)):
            return
    with pytest.raises(PolicyError, match=reason), apply_policy(model, Policy(stages=stages)):
        pass
