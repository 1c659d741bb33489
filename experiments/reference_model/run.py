"""Measure the shipped model on the full holdout of every task: `python -m experiments.reference_model.run`."""

from __future__ import annotations

from pathlib import Path

from experiments.result import Claim, write_result
from vtw_search.config import load_config
from vtw_search.engine import BatchEvaluator, batches
from vtw_search.evaluation.model import REFERENCE_MODEL, LoadedModel, load_model
from vtw_search.evaluation.splits import make_splits
from vtw_search.evaluation.statistics import mean_interval
from vtw_search.evaluation.tasks import Sample, load_pools

TARGETS = {"easy_vqa_color": 0.99, "easy_vqa_shape": 0.98, "easy_vqa_yesno": 0.97, "digits_read": 0.90}
EVERYTHING = {"calibration": 1, "selection": 1, "confirmation": 0, "holdout": 10**6}


def holdout(task: str) -> tuple[Sample, ...]:
    """Return all holdout samples of a task."""
    settings = load_config(f"task={task}").tasks[task]
    return make_splits(load_pools(settings.source, settings.options), seed=0, sizes=EVERYTHING)["holdout"]


def scores(loaded: LoadedModel, samples: tuple[Sample, ...]) -> list[float]:
    """Return the score of the model's greedy answer to every sample, all tokens kept."""
    found: list[float] = []
    for start, batch in batches(samples, 100):
        answers = BatchEvaluator(loaded, batch, "holdout", start, max_new_tokens=8).reference.texts
        found += [each.score(answer) for answer, each in zip(answers, batch, strict=True)]
    assert len(found) == len(samples)
    return found


def main() -> None:
    """Measure and write the claims."""
    loaded, claims, details = load_model("reference"), [], {}
    for task, target in TARGETS.items():
        samples = holdout(task)
        values = scores(loaded, samples)
        claims.append(Claim(f"holdout accuracy, {task}", sum(values) / len(values), "", target))
        interval = mean_interval(values, [sample.cluster for sample in samples])
        details[task] = {"samples": len(samples), "interval_95": list(interval)}
    size = sum(path.stat().st_size for path in REFERENCE_MODEL.iterdir()) / 1e6
    claims.append(Claim("size of model, processor and tokenizer", size, "MB", 16.0, "at most"))
    write_result(Path(__file__).parent, 0, claims, details)


if __name__ == "__main__":
    main()
