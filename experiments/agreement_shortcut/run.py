"""Answers of the one pass against free generation, per dtype. `python -m experiments.agreement_shortcut.run`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import track

from experiments.result import Claim, write_result
from vtw_search import Policy, apply_policy
from vtw_search.config import load_config
from vtw_search.engine import OnePassEvaluator, batches
from vtw_search.evaluation.model import LoadedModel, load_model
from vtw_search.evaluation.splits import make_splits
from vtw_search.evaluation.tasks import Sample, load_pools
from vtw_search.facts import ModelFacts
from vtw_search.recipes import RECIPES
from vtw_search.search.space import candidates_of, make_space

TASKS = ("easy_vqa_color", "easy_vqa_yesno", "easy_vqa_shape", "digits_read")
DTYPES = ("float32", "bfloat16", "float16")
BATCH = 20
# Of the answers that were taken over without being generated.
BOUNDS = {"float32": 0.0, "bfloat16": 1e-3, "float16": 1e-3}


@dataclass
class Counts:
    """Answers, those of them that were taken over, and how many of either kind differ from generation.

    `one_by_one` are those of batches that the engine did not score in one pass.
    """

    answers: int = 0
    one_by_one: int = 0
    taken_over: int = 0
    taken_over_differ: int = 0
    generated_differ: int = 0


def policies_of(facts: ModelFacts) -> list[Policy]:
    """Return a withdrawal at every layer and the published policy of each other recipe."""
    others = [policy for name in RECIPES for policy in make_space(facts, {name: {}}, None).defaults()]
    return list(dict.fromkeys([*candidates_of(make_space(facts, {"vtw": {}}, None))[1:], *others]))


@torch.inference_mode()
def generated(loaded: LoadedModel, samples: Sequence[Sample], policy: Policy, length: int) -> list[str]:
    """Return the answers of free generation under a policy."""
    images = [[image.open() for image in sample.images] for sample in samples]
    inputs = loaded.adapter.encode(loaded.processor, [sample.prompt for sample in samples], images)
    with apply_policy(loaded.model, policy):
        found = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=length)
    texts = loaded.processor.batch_decode(found[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def counted(loaded: LoadedModel, samples: Sequence[Sample], length: int, label: str) -> Counts:
    """Return the counts of one task."""
    counts, policies = Counts(), policies_of(loaded.facts)
    for start, batch in track(list(batches(samples, BATCH)), description=label):
        evaluator = OnePassEvaluator(loaded, batch, "holdout", start, length)
        found = evaluator.records_of(policies)
        if evaluator.problem is not None:
            # Rounding is so coarse that the engine itself does not trust one call; it ran the candidates one by one.
            counts.one_by_one += len(batch) * len(policies)
            continue
        for policy in policies:
            truth = generated(loaded, batch, policy, length)
            for row, (record, text) in enumerate(zip(found[policy], truth, strict=True)):
                taken = row not in evaluator.generated[policy]
                counts.answers += 1
                counts.taken_over += taken
                counts.taken_over_differ += taken and record.answer != text
                counts.generated_differ += not taken and record.answer != text
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Count and write the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parsed = parser.parse_args(arguments)
    details, claims = {}, []
    for dtype in parsed.dtypes:
        loaded = load_model("reference", device="cpu", dtype=dtype)
        rows = {}
        for task in parsed.tasks:
            settings = load_config(f"task={task}").named_tasks[task]
            samples = make_splits(
                load_pools(settings.source, settings.options), 0,
                {"calibration": 1, "selection": 1, "confirmation": 0, "holdout": parsed.samples},
            )["holdout"]  # fmt: skip
            rows[task] = counted(loaded, samples, settings.max_new_tokens, f"{dtype} {task}")
        answers, taken, differ, others, apart = (
            sum(getattr(row, name) for row in rows.values())
            for name in ("answers", "taken_over", "taken_over_differ", "generated_differ", "one_by_one")
        )
        details[dtype] = {task: asdict(row) for task, row in rows.items()}
        # Of nothing, no rate can be claimed.
        if taken:
            name = f"{dtype}: answers taken over that differ from generation"
            claims.append(Claim(name, differ / taken, "", BOUNDS[dtype], "at most"))
        claims += [
            Claim(f"{dtype}: answers that were taken over", taken / max(answers, 1), ""),
            Claim(f"{dtype}: answers of batches that the engine ran one by one", apart / max(answers + apart, 1), ""),
            Claim(f"{dtype}: generated answers that differ in another batch", others / max(answers - taken, 1), ""),
        ]  # fmt: skip
    write_result(parsed.out, 0, claims, details)


if __name__ == "__main__":
    main()
