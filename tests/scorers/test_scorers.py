"""Scores against attention maps that the model itself returns, and against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments.model_coverage.families import find
from vtw_search import Policy, Stage, apply_policy
from vtw_search.errors import PolicyError
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import easy_vqa
from vtw_search.policies import ScorerChoice
from vtw_search.runtime import stages
from vtw_search.runtime.attention import Fused, LayerAttention
from vtw_search.scorers import SCORERS, Shape, View, complete_options, find_scorer


def view_of(visual: list[int], attention: Any = None, hidden: torch.Tensor | None = None) -> View:
    mask = torch.tensor([visual], dtype=torch.bool)
    states = torch.zeros(1, len(visual), 1) if hidden is None else hidden
    return View(mask, torch.ones_like(mask), mask.long().cumsum(1) - 1, torch.tensor([1]), states, attention)


def uniform_attention(tokens: int) -> LayerAttention:
    """Causal attention whose every row is uniform over what it sees."""
    zeros = torch.zeros(1, 2, tokens, 4)
    return LayerAttention([Fused(zeros, zeros, None, True, 1.0)], tokens)


def test_the_published_deep_score_has_a_causal_bias_that_normalising_removes() -> None:
    view = view_of([1] * 8, uniform_attention(8))
    scorer = find_scorer("visual_received")
    biased, fair = (scorer.score(view, {"normalise": normalise})[0] for normalise in (False, True))
    expected = [sum(1 / query for query in range(place, 9)) for place in range(1, 9)]
    assert biased.tolist() == pytest.approx(expected)
    assert [round(value, 2) for value in biased.tolist()] == [2.72, 1.72, 1.22, 0.88, 0.63, 0.43, 0.27, 0.12]
    assert fair.tolist() == pytest.approx([value / (8 - place) for place, value in enumerate(expected)])


def test_the_shallow_score_is_a_tie_under_uniform_attention() -> None:
    view = view_of([0, 1, 1, 1, 0, 0], uniform_attention(6))
    for queries in ("last", "instruction"):
        scores = find_scorer("text_to_visual").score(view, {"queries": queries})[0, 1:4]
        assert float(scores.max() - scores.min()) < 1e-7


def test_relevance_is_the_cosine_to_the_mean_instruction() -> None:
    hidden = torch.randn(1, 5, 7)
    scores = find_scorer("text_relevance").score(view_of([0, 1, 1, 0, 0], hidden=hidden), {})[0]
    question = hidden[0, 3:].mean(0)
    for place in (1, 2):
        assert float(scores[place]) == pytest.approx(float(torch.cosine_similarity(hidden[0, place], question, dim=0)))


def test_random_scores_do_not_depend_on_how_many_there_are() -> None:
    few, many = view_of([1] * 5), view_of([1] * 3000)
    scorer = find_scorer("random")
    assert torch.equal(scorer.score(few, {"seed": 3}), scorer.score(many, {"seed": 3})[:, :5])
    assert not torch.equal(scorer.score(few, {"seed": 3}), scorer.score(few, {"seed": 4}))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu", attention="eager")


def vision_scores(loaded: LoadedModel, scorer: str, **options: Any) -> tuple[torch.Tensor, Any]:
    """Return the scores that a selection uses on two images, and the tower's own outputs."""
    samples = list(easy_vqa.load_pool("color", "holdout"))[:2]
    inputs = loaded.adapter.encode(
        loaded.processor, [sample.prompt for sample in samples], [[sample.images[0].open()] for sample in samples]
    )
    choice = ScorerChoice(name=scorer, options=options)
    policy = Policy(stages=(Stage(site="vision", layer=0, operator="select", keep=0.5, scorer=choice),))
    noted: list[torch.Tensor] = []
    whole = stages._scores

    def note(*given: Any) -> Any:
        scores = whole(*given)
        noted.append(scores[given[1].visual].view(2, -1))
        return scores

    with pytest.MonkeyPatch.context() as patch, apply_policy(loaded.model, policy), torch.no_grad():
        patch.setattr(stages, "_scores", note)
        loaded.model(**inputs, use_cache=False)
    tower = loaded.model.model.vision_tower
    with torch.no_grad():
        outputs = tower(inputs["pixel_values"], output_attentions=True, output_hidden_states=True)
    return noted[0], outputs


@pytest.mark.parametrize("first", [-2, -3, 0])
def test_class_attention_equals_the_towers_own_maps(loaded: LoadedModel, first: int) -> None:
    scores, outputs = vision_scores(loaded, "cls_attention", first=first)
    layers = outputs.attentions[first:-1]
    expected = sum((maps.mean(dim=1)[:, 0, 1:] for maps in layers), torch.zeros_like(scores))
    assert torch.allclose(scores, expected, atol=1e-6)


def test_received_attention_equals_the_towers_own_maps(loaded: LoadedModel) -> None:
    scores, outputs = vision_scores(loaded, "vision_received")
    expected = outputs.attentions[-2].mean(dim=1)[:, 1:].sum(dim=1)[:, 1:]
    assert torch.allclose(scores, expected, atol=1e-5)
    rows, _ = vision_scores(loaded, "vision_received", layout="row")
    assert torch.allclose(rows, expected.view(2, 8, 8).mean(-1, keepdim=True).expand(-1, -1, 8).flatten(1), atol=1e-5)
    cls, _ = vision_scores(loaded, "vision_received", source="cls")
    assert torch.allclose(cls, vision_scores(loaded, "cls_attention", first=-2)[0], atol=1e-6)


def test_class_similarity_is_taken_where_the_projector_takes_its_features(loaded: LoadedModel) -> None:
    scores, outputs = vision_scores(loaded, "cls_similarity")
    features = outputs.hidden_states[loaded.model.config.vision_feature_layer]
    assert torch.allclose(scores, torch.cosine_similarity(features[:, 1:], features[:, :1], dim=-1), atol=1e-6)


@pytest.mark.parametrize("first", [-1, 3, 99])
def test_a_sum_over_no_layers_is_refused(loaded: LoadedModel, first: int) -> None:
    with pytest.raises(PolicyError, match="a layer before the last"):
        vision_scores(loaded, "cls_attention", first=first)


@pytest.mark.parametrize("name", SCORERS)
def test_options_are_checked_and_costs_are_counts(name: str) -> None:
    scorer = SCORERS[name]
    options = complete_options(scorer, {})
    cost = scorer.macs(Shape(651, 576, 40, 4096, 1, 577, 1024, 24), options)
    assert cost >= 0
    assert (cost > 0) == (scorer.reads != "nothing")
    with pytest.raises(PolicyError, match="unknown option 'surprise'"):
        complete_options(scorer, {"surprise": 1})


def test_costs_of_the_published_scorers() -> None:
    shape = Shape(651, 576, 40, 4096, 1, 577, 1024, 24)
    assert find_scorer("text_to_visual").macs(shape, {"queries": "last"}) == 651 * 4096
    assert find_scorer("text_to_visual").macs(shape, {"queries": "instruction"}) == 40 * 651 * 4096
    assert find_scorer("visual_received").macs(shape, {}) == 576 * 651 * 4096
    assert find_scorer("cls_attention").macs(shape, {"first": -2}) == 577 * 1024
    assert find_scorer("vision_received").macs(shape, {"source": "all"}) == 577 * 577 * 1024


def test_sdpa_is_read_as_eager_computes_it() -> None:
    """Grouped queries, padding and a causal mask: the fused call's rows equal the eager maps."""
    family = find("llava")
    inputs = family.inputs([("small",), ("small", "small")])
    policy = Policy(stages=(Stage(layer=2, operator="prune", keep=0.5, scorer=ScorerChoice(name="text_to_visual")),))
    found = []
    for attention in ("eager", "sdpa"):
        with apply_policy(family.build(attention), policy) as active, torch.no_grad():
            model = active._removal.model
            found.append(model(**inputs, use_cache=False).logits[:, -1])
    assert torch.allclose(found[0], found[1], atol=1e-4)
