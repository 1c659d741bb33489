"""The one pass against `apply_policy`, which is held against masking elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.model_coverage import run as coverage
from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from vtw_search import Policy, Stage
from vtw_search.adapters import find_adapter
from vtw_search.engine import BatchEvaluator, OnePassEvaluator
from vtw_search.engine.one_pass import Prompt, logits_of, one_pass_problem, run_one_pass
from vtw_search.engine.processors import greedy_choices
from vtw_search.engine.trie import build_trie
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.tasks import Sample, digits, easy_vqa
from vtw_search.facts import ModelFacts
from vtw_search.policies import ScorerChoice
from vtw_search.runtime import make_ready, run_under_policy
from vtw_search.runtime.deviation import deviation

USUAL = ("llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "internvl", "gemma3", "paligemma", "idefics3", "mistral3")
ROWS = {path.stem: json.loads(path.read_text()) for path in sorted(Path(coverage.ROWS).glob("*.json"))}
SUPPORTED = [name for name, row in ROWS.items() if row["status"] == "supported"]


def prune(layer: int, keep: float | int | str, scorer: str, **options: Any) -> Stage:
    return Stage(layer=layer, operator="prune", keep=keep, scorer=ScorerChoice(name=scorer, options=options))


def before(operator: str, keep: Any, scorer: str | None = None, position: Any = "keep", **options: Any) -> Stage:
    choice = ScorerChoice(name=scorer, options=options) if scorer else None
    own = {} if scorer else options
    return Stage(site="vision", layer=0, operator=operator, keep=keep, scorer=choice, position=position, options=own)


def withdraw(layer: int) -> Stage:
    return Stage(layer=layer, operator="withdraw")


def policies_for(facts: ModelFacts) -> list[Policy]:
    """Every withdrawal, and every scorer that the decoder alone feeds, in one to three stages that share beginnings."""
    low, high = facts.first_layer, min(facts.last_layer, facts.num_layers - 1)
    found = [Policy.keep_all(), *(Policy.withdraw(layer) for layer in range(low, high + 1))]
    if high - low >= 2:
        first, again = prune(low, 0.5, "text_to_visual"), prune(low, 0.5, "text_to_visual", queries="instruction")
        found += [
            Policy(stages=(first, prune(low + 1, 0.5, "visual_received", normalise=True))),
            Policy(stages=(first, prune(low + 1, 0.5, "visual_received"), withdraw(low + 2))),
            Policy(stages=(first, prune(low + 2, 2, "random", seed=1))),
            Policy(stages=(again, prune(low + 1, "knee", "text_relevance"), prune(low + 2, 1, "uniform"))),
        ]
    return found


def largest_deviation(name: str) -> float:
    family = find(name)
    model: Any = family.build()
    adapter = find_adapter(model)
    facts, worst = adapter.facts(model), 0.0
    policies = policies_for(facts)
    for probe in family_probes(family):
        visual = adapter.visual_mask(model, probe.inputs)
        if visual is None:
            continue
        prompt = Prompt(probe.inputs, visual, ~probe.real, probe.real, 2)
        outcomes = run_one_pass(model, adapter, prompt, [make_ready(policy, facts) for policy in policies])
        scored: set[int] = set()
        for outcome, logits in logits_of(model, adapter, outcomes, int(probe.inputs["input_ids"][0, -1]), 10**5):
            for number in outcome.candidates:
                with run_under_policy(model, adapter, policies[number]) as active, torch.no_grad():
                    expected = model(**probe.inputs, use_cache=False).logits[:, -2:]
                    left = [stage.tolist() for stage in active.visual_left]
                worst = max(worst, deviation(logits, expected))
                assert [stage.tolist() for stage in outcome.visual_left] == left
                scored.add(number)
        assert scored == set(range(len(policies)))
    return worst


@pytest.mark.parametrize("name", USUAL)
def test_all_candidates_in_one_pass_equal_one_by_one(name: str) -> None:
    assert largest_deviation(name) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SUPPORTED if name not in USUAL])
def test_every_supported_family_equals_one_by_one_or_says_why_not(name: str) -> None:
    model = find(name).build()
    problem = one_pass_problem(model, find_adapter(model))
    if problem is not None:
        assert "keys" in problem
    elif ROWS[name]["dtype"] == "float32":
        assert largest_deviation(name) <= 1e-5
    else:
        assert largest_deviation(name) <= 1e-4  # its own float32 rounding is as large; the coverage table says so


def test_candidates_share_the_stages_that_they_begin_with() -> None:
    model = find("llava").build()
    facts = find_adapter(model).facts(model)
    root = build_trie([make_ready(policy, facts) for policy in policies_for(facts)])
    assert root.candidates == [0]
    assert len(root.children) == 5 + 2
    shared = next(node for node in root.children if len(node.children) == 3)
    assert sorted(len(child.children) for child in shared.children) == [0, 0, 1]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Prompts of different length, answers of one to four tokens."""
    return [*list(easy_vqa.load_pool("yesno", "holdout"))[:4], *list(digits.load_pool("holdout"))[:4]]


ON_THE_REFERENCE = [
    Policy.keep_all(),
    *(Policy.withdraw(layer) for layer in (1, 3, 7, 11, 12)),
    Policy(stages=(prune(2, 0.5, "text_to_visual"), prune(4, 0.25, "visual_received"))),
    Policy(stages=(before("select", 0.25, "cls_attention", first=-4), withdraw(8))),
    Policy(stages=(before("select", 0.25, "cls_attention", "recount"),)),
    Policy(stages=(before("select", 0.5, "vision_received", layout="row"), prune(3, 8, "text_relevance"))),
    Policy(stages=(before("select", "second_difference", "cls_similarity"), prune(3, 0.5, "text_to_visual"))),
    Policy(stages=(before("downsample", 0.25),)),
    # Differ in their positions alone.
    Policy(stages=(before("downsample", 0.5, None, "recount", mode="stride"), prune(3, 10, "uniform"))),
    Policy(stages=(before("downsample", 0.5, None, "keep", mode="stride"), prune(3, 10, "uniform"))),
    Policy(stages=(before("select", 0.5, "random", seed=3), prune(2, 0.5, "visual_received", normalise=True))),
]


def test_records_equal_those_of_one_by_one(loaded: LoadedModel, samples: list[Sample]) -> None:
    together = OnePassEvaluator(loaded, samples, "holdout", 0, 6)
    found = together.records_of(ON_THE_REFERENCE)
    assert together.problem is None
    alone = BatchEvaluator(loaded, samples, "holdout", 0, 6)
    for policy in ON_THE_REFERENCE:
        for one, other in zip(found[policy], alone.records(policy), strict=True):
            assert (one.answer, one.agreement, one.score) == (other.answer, other.agreement, other.score)
            assert one.visual_left == other.visual_left
            for column in ("kl_answer_nats", "kl_answer_reverse_nats", "kl_first_nats", "kl_answer_sum_nats"):
                # The trained model's logits are sharp, so that rounding is worth more nats than in a random one.
                assert getattr(one, column) == pytest.approx(getattr(other, column), rel=1e-4, abs=1e-4)
    generated = sum(map(len, together.generated.values()))
    assert generated < len(samples) * len(ON_THE_REFERENCE)


def test_answers_that_agree_are_not_generated(loaded: LoadedModel, samples: list[Sample]) -> None:
    evaluator = OnePassEvaluator(loaded, samples, "holdout", 0, 6)
    evaluator.records_of([Policy.keep_all(), Policy.withdraw(12)])
    assert not any(evaluator.generated.values())


def test_processors_are_those_of_generate(loaded: LoadedModel, samples: list[Sample], monkeypatch: Any) -> None:
    monkeypatch.setattr(loaded.model.generation_config, "repetition_penalty", 1.7)
    monkeypatch.setattr(loaded.model.generation_config, "min_new_tokens", 3)
    evaluator = OnePassEvaluator(loaded, samples, "holdout", 0, 6)
    tokens = evaluator.reference.tokens
    chosen, _ = greedy_choices(loaded.model, evaluator.inputs["input_ids"], tokens, evaluator.reference.logits, 6)
    answered = evaluator._answered()
    assert torch.equal(chosen[answered], tokens[answered])
    assert not torch.equal(evaluator.reference.logits.argmax(-1)[answered], tokens[answered])


def test_where_memory_runs_out_half_of_the_candidates_are_tried(
    loaded: LoadedModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vtw_search.engine import evaluator

    sizes = []

    def limited(model: Any, adapter: Any, prompt: Any, candidates: Any, check: Any) -> Any:
        sizes.append(len(candidates) - 1)
        if len(candidates) > 3:
            raise torch.OutOfMemoryError("no memory")
        return run_one_pass(model, adapter, prompt, candidates, check)

    monkeypatch.setattr(evaluator, "run_one_pass", limited)
    found = OnePassEvaluator(loaded, samples, "holdout", 0, 6).records_of(ON_THE_REFERENCE[:5])
    assert sizes == [5, 2, 3, 1, 2]
    assert all(record.failure is None for records in found.values() for record in records)


def test_candidates_that_cannot_share_a_pass_are_run_one_by_one(loaded: LoadedModel, samples: list[Sample]) -> None:
    evaluator = OnePassEvaluator(loaded, samples, "holdout", 0, 6)
    evaluator.problem = "for this test"
    policy = Policy.withdraw(3)
    assert evaluator.records_of([policy]) == {policy: evaluator.records(policy)}
