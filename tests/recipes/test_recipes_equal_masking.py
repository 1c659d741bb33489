"""Every recipe against the masked oracle, on the embedded model and on tiny models of the families that can run it."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from tests.runtime.masked_oracle import MaskedOracle
from vtw_search import Policy, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.conformance.bench import Bench
from vtw_search.conformance.probes import Probe
from vtw_search.errors import PolicyError
from vtw_search.evaluation.model import load_model
from vtw_search.evaluation.tasks import easy_vqa
from vtw_search.recipes import RECIPES
from vtw_search.runtime import make_ready
from vtw_search.search.space import make_space

FAMILIES = (
    "reference", "llava", "vipllava", "video_llava", "internvl", "paligemma", "gemma3", "idefics3", "qwen2_5_vl",
    "mistral3", "llava_next",
)  # fmt: skip
DRAWN = 4
# Of the spread of the logits; Gemma's twelve layers and two embeddings round to a little more than 1e-5.
TOLERANCE = 2e-5
# What needs more than placeholders in a decoder; every other recipe runs on each of the families.
CLASS_TOKEN = {"llava", "vipllava", "video_llava", "internvl", "reference"}
TOWER = CLASS_TOKEN | {"paligemma", "gemma3", "idefics3"}
GRIDS = (TOWER | {"qwen2_5_vl"}) - {"video_llava"}
RUN_ON = {"vtc_cls": CLASS_TOKEN, "image_text_interaction": CLASS_TOKEN, "fopru": TOWER, "downsample": GRIDS}


@cache
def benches(name: str) -> tuple[Bench, Any]:
    """Return an eager model with its probes, and the same model under sdpa."""
    if name == "reference":
        eager, fused = (load_model("reference", device="cpu", attention=each) for each in ("eager", "sdpa"))
        samples = list(easy_vqa.load_pool("color", "holdout"))[:3]
        prompts, images = [each.prompt for each in samples], [[each.images[0].open()] for each in samples]
        probes = [
            Probe("one", eager.adapter.encode(eager.processor, prompts[:1], images[:1])),
            Probe("three", eager.adapter.encode(eager.processor, prompts, images)),
        ]
        return Bench(eager.model, eager.adapter, probes, 1e-5), fused.model
    family = find(name)
    eager_model = family.build("eager")
    found = Bench(eager_model, find_adapter(eager_model), family_probes(family), 1e-5)
    return found, family.build("sdpa")


def policies_of(name: str, bench: Bench) -> list[Policy]:
    """Return the published policy of a recipe, and some drawn from its space."""
    space = make_space(bench.facts, {name: {}}, None)
    possible = list(dict.fromkeys([*space.defaults(), *space.policies()]))
    drawn = random.Random(0).sample(possible[1:], min(DRAWN, len(possible) - 1))
    return [*possible[:1], *drawn]


def probes_of(policy: Policy, bench: Bench) -> list[Probe]:
    """Return all probes, but for videos where a policy reads the vision tower."""
    tower = any(stage.site == "vision" for stage in policy.stages)
    return [probe for probe in bench.visual_probes if not (tower and "pixel_values_videos" in probe.inputs)]


# The published policy and one that was drawn, and with the slow tests the rest of them.
@pytest.mark.parametrize("part", [slice(2), pytest.param(slice(2, None), marks=pytest.mark.slow)], ids=["", "rest"])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_equals_its_masked_oracle(name: str, recipe: str, part: slice) -> None:
    bench, fused = benches(name)
    if name not in RUN_ON.get(recipe, FAMILIES):
        with pytest.raises(PolicyError, match=r"cannot run on this .*; "):
            make_space(bench.facts, {recipe: {}}, None)
        return
    policies = policies_of(recipe, bench)
    assert policies, "the recipe must have a policy on this model"
    for policy in policies[part]:
        make_ready(policy, bench.facts)
        probes = probes_of(policy, bench)
        assert probes
        for probe in probes:
            logits, wanted = MaskedOracle(bench, probe.inputs).logits(policy)
            expected = logits[wanted]
            spread = float(expected[expected > torch.finfo(expected.dtype).min / 2].std())
            for model in (bench.model, fused):
                with apply_policy(model, policy), torch.no_grad():
                    found = model(**probe.inputs, use_cache=False).logits
                assert found.shape == logits.shape, policy.label()
                assert float((found[wanted] - expected).abs().max()) <= TOLERANCE * spread, policy.label()


def test_a_row_does_not_depend_on_how_many_tokens_its_neighbours_keep() -> None:
    bench, fused = benches("reference")
    samples = list(easy_vqa.load_pool("color", "holdout"))[:20]
    loaded = load_model("reference", device="cpu")

    def encoded(rows: list[Any]) -> Any:
        images = [[image.open() for image in row.images] for row in rows]
        return loaded.adapter.encode(loaded.processor, [row.prompt for row in rows], images)

    (policy,) = make_space(bench.facts, {"image_text_interaction": {}}, None).defaults()
    with apply_policy(fused, policy) as active, torch.no_grad():
        together = fused(**encoded(samples), use_cache=False).logits[:, -1]
        assert len(set(active.visual_left[0].tolist())) > 1
        alone = torch.stack([fused(**encoded([row]), use_cache=False).logits[0, -1] for row in samples])
    assert float((together - alone).abs().max()) <= TOLERANCE * float(alone.std())
