"""What it costs to score every withdrawal layer, and many pruning policies, in one pass.

`python -m experiments.sweep_cost.run`
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from experiments.result import Claim, write_result
from experiments.sweep_cost.memory import peak_above_weights
from experiments.sweep_cost.shapes import (
    AFTER,
    BEFORE,
    IMAGE,
    LAYERS,
    Cost,
    build,
    make_inputs,
    prefill,
    published_loop,
)
from vtw_search import Policy, Stage, apply_policy
from vtw_search.adapters import find_adapter
from vtw_search.engine.one_pass import Prompt, logits_of, run_one_pass
from vtw_search.policies import ScorerChoice
from vtw_search.runtime import make_ready

ROUNDS = {(256, 576): 25, (1024, 576): 5, (256, 2880): 5, (1024, 2880): 2}
PUBLISHED_LAYERS = range(5, LAYERS)
# (hidden, visual tokens) -> (prefills at most, times faster than the published loop at least)
TARGETS = {(256, 576): (1.9, 9.0), (1024, 576): (2.05, 8.5), (256, 2880): (1.25, 13.0), (1024, 2880): (1.25, 13.0)}
SCORERS = ("text_to_visual", "text_relevance", "random")
SHARES = (0.5, 0.25, 0.125, 0.0)


class Sweep:
    """One model and prompt, and the ways of scoring candidates on it."""

    def __init__(self, hidden: int, visual: int) -> None:
        self.model = build(hidden)
        self.inputs, self.adapter = make_inputs(self.model, visual), find_adapter(self.model)
        self.facts = self.adapter.facts(self.model)
        is_visual = self.inputs["input_ids"] == IMAGE
        padding = torch.zeros_like(is_visual)
        self.prompt = Prompt(self.inputs, is_visual, padding, ~padding, 1)

    def one_pass(self, policies: Sequence[Policy]) -> dict[int, torch.Tensor]:
        """Score all policies in one pass; last-position logits by number."""
        stages = [make_ready(policy, self.facts) for policy in policies]
        outcomes = run_one_pass(self.model, self.adapter, self.prompt, stages)
        scored = logits_of(self.model, self.adapter, outcomes, 11, 2**26)
        return {number: logits[:, -1] for outcome, logits in scored for number in outcome.candidates}

    @torch.inference_mode()
    def one_by_one(self, policies: Sequence[Policy]) -> dict[int, torch.Tensor]:
        """Score policies one after another through `apply_policy`."""
        found = {}
        for number, policy in enumerate(policies):
            with apply_policy(self.model, policy):
                found[number] = prefill(self.model, self.inputs)
        return found

    def plain(self) -> torch.Tensor:
        """Run the plain model."""
        return prefill(self.model, self.inputs)

    def published(self) -> list[torch.Tensor]:
        """Run the published loop."""
        return published_loop(self.model, self.inputs, PUBLISHED_LAYERS)


def timed(
    calls: dict[str, Callable[[], Any]], rounds: int, label: str
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return seconds per call and round, and the last results; the order turns from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Any] = {}
    for number in track(range(rounds), description=label):
        names = list(calls)[:: -1 if number % 2 else 1]
        for name in names:
            began = time.perf_counter()
            results[name] = calls[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds, results


def ratio(seconds: dict[str, list[float]], above: str, below: str) -> float:
    """Return the median ratio within a round."""
    return statistics.median(a / b for a, b in zip(seconds[above], seconds[below], strict=True))


def sweep_layers(hidden: int, visual: int) -> tuple[list[Claim], dict[str, Any]]:
    """Score all 31 layers, against full prefills and the published loop."""
    sweep, policies = Sweep(hidden, visual), [Policy.withdraw(layer) for layer in range(1, LAYERS)]
    calls = {"prefill": sweep.plain, "one pass": lambda: sweep.one_pass(policies)}
    for call in calls.values():
        call()
    name = f"hidden {hidden}, {visual} visual tokens"
    seconds, _ = timed(calls, ROUNDS[hidden, visual], name)
    loop_rounds = 3 if hidden * visual < 10**6 else 1
    loop, results = timed({"one pass": calls["one pass"], "published": sweep.published}, loop_rounds, "published loop")
    for layer, logits in zip(PUBLISHED_LAYERS, results["published"][1:], strict=True):
        assert torch.allclose(results["one pass"][layer - 1], logits, atol=1e-4), "both compute the same"
    costs = {half: Cost(hidden, half) for half in (False, True)}
    branches = [[AFTER] * layer for layer in range(LAYERS)]
    ideal = {
        half: cost.one_pass(visual, branches) / cost.prefill(BEFORE + visual + AFTER) for half, cost in costs.items()
    }
    prefills, times = ratio(seconds, "one pass", "prefill"), ratio(loop, "published", "one pass")
    most, least = TARGETS[hidden, visual]
    claims = [
        Claim(f"{name}: all 31 layers, in full prefills", prefills, "prefills", most, "at most"),
        Claim(f"{name}: ideal by macs, causal attention counted in full", ideal[False], "prefills"),
        Claim(f"{name}: ideal by macs, causal attention counted as half", ideal[True], "prefills"),
        Claim(f"{name}: share of the ideal that is reached", ideal[False] / prefills, "", 0.9),
        Claim(f"{name}: times faster than the published loop", times, "times", least),
    ]
    return claims, {"seconds": seconds, "published_loop_seconds": loop, "ideal_half": ideal[True]}


def random_policies(count: int, seed: int) -> list[Policy]:
    """Return policies of three stages at random layers, with three scorers and shrinking shares; 0 is withdrawal."""
    generator, found = random.Random(seed), dict[Policy, None]()
    while len(found) < count:
        layers = sorted(generator.sample(range(1, LAYERS), 3))
        stages: list[Stage] = []
        for layer in layers:
            share = generator.choice(SHARES)
            if share == 0.0:
                stages.append(Stage(layer=layer, operator="withdraw"))
                break
            scorer = ScorerChoice(name=generator.choice(SCORERS))
            stages.append(Stage(layer=layer, operator="prune", keep=share, scorer=scorer))
        found[Policy(stages=tuple(stages))] = None
    return list(found)


def many_policies(hidden: int, visual: int) -> tuple[list[Claim], dict[str, Any]]:
    """Score 200 random three-stage policies in one pass and one by one."""
    sweep, policies = Sweep(hidden, visual), random_policies(200, seed=0)
    sweep.plain()
    calls = {"one pass": lambda: sweep.one_pass(policies), "one by one": lambda: sweep.one_by_one(policies)}
    seconds, results = timed(calls, 1, "200 policies of three stages")
    together, alone = results["one pass"], results["one by one"]
    worst = max(float((together[n] - alone[n]).abs().max()) for n in alone)
    assert worst < 1e-3, f"both compute the same, but for {worst}"
    speedup, allowed = ratio(seconds, "one by one", "one pass"), allowed_speedup(Cost(hidden, False), visual, policies)
    name = f"hidden {hidden}, {visual} visual tokens: 200 three-stage policies"
    claims = [
        Claim(f"{name}, one pass against one by one", speedup, "times faster"),
        Claim(f"{name}, speed-up that the macs of the trie allow", allowed, "times faster"),
        Claim(f"{name}, share of that", speedup / allowed, "", 0.8),
    ]
    return claims, {"seconds": seconds, "largest_difference": worst}


def allowed_speedup(cost: Cost, visual: int, policies: Sequence[Policy]) -> float:
    """Return the macs of one by one over those of the trie, in which equal beginnings are run once."""
    alone, shared = 0.0, cost.prefill(BEFORE + visual + AFTER)
    seen: set[tuple[tuple[Stage, ...], int]] = set()
    for policy in policies:
        left, alone_tokens = visual, [BEFORE + visual + AFTER] * LAYERS
        for number, stage in enumerate(policy.stages):
            left = 0 if stage.operator == "withdraw" else max(1, int(float(stage.keep or 0) * left + 0.5))
            alone_tokens[stage.layer :] = [BEFORE + left + AFTER] * (LAYERS - stage.layer)
            following = policy.stages[number + 1].layer if number + 1 < len(policy.stages) else LAYERS
            for layer in range(stage.layer, following):
                place = (policy.stages[: number + 1], layer)
                if place not in seen:
                    seen.add(place)
                    shared += cost.layer(left + AFTER, BEFORE)
        alone += sum(cost.layer(tokens) for tokens in alone_tokens)
    return alone / shared


def memory(hidden: int, visual: int) -> tuple[list[Claim], dict[str, Any]]:
    """Compare the peaks of the plain prefill and of the one pass."""
    peaks = {name: peak_above_weights(hidden, visual, name) for name in ("prefill", "one pass")}
    name = f"hidden {hidden}, {visual} visual tokens: peak bytes above the weights, one pass / prefill"
    return [Claim(name, peaks["one pass"] / peaks["prefill"], "", 1.5, "at most")], {"peaks": peaks}


def main(parts: Sequence[str]) -> None:
    """Run everything, or the named parts, such as `256x576` or `policies`; other parts keep their last numbers.

    Every ratio is taken within its part, so that parts may be run on different days.
    """
    pieces: dict[str, list[Callable[[], tuple[list[Claim], dict[str, Any]]]]] = {
        f"{hidden}x{visual}": [partial(sweep_layers, hidden, visual), partial(memory, hidden, visual)]
        for hidden, visual in TARGETS
    }
    pieces["policies"] = [partial(many_policies, 256, 576)]
    folder = Path(__file__).parent
    details: dict[str, Any] = {}
    if parts:
        details = json.loads((folder / "results" / "result.json").read_text())["details"]
    for part in parts or pieces:
        claims: list[Claim] = []
        details[part] = {}
        for piece in pieces[part]:
            found, more = piece()
            claims, details[part] = claims + found, details[part] | more
        details[part]["claims"] = [asdict(claim) for claim in claims]
    every = [Claim(**claim) for part in pieces if part in details for claim in details[part]["claims"]]
    write_result(folder, 0, every, details)


if __name__ == "__main__":
    main(sys.argv[1:])
