"""Reproduce the holdout accuracy in a policy file with the public API alone.

`python -m experiments.holdout_reproduction.run --policy runs/<search>/policy.json`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor

from experiments.result import Claim, write_result
from vtw_search import PolicySet, apply_policy, load_policy
from vtw_search.evaluation.model import REFERENCE_MODEL
from vtw_search.evaluation.splits import make_splits
from vtw_search.evaluation.tasks import Sample, load_pools

HERE = Path(__file__).parent


def holdout_samples(task: str, config: dict) -> tuple[Sample, ...]:  # type: ignore[type-arg]
    """Return the holdout that the search used, from its saved configuration."""
    settings = config["tasks"][task]
    pools = load_pools(settings["source"], settings["options"])
    return make_splits(pools, config["seed"], {"confirmation": 0, **config["samples"]})["holdout"]


@torch.inference_mode()
def accuracy(policies: PolicySet, task: str, samples: tuple[Sample, ...]) -> float:
    """Answer every sample by itself, as a serving process would, and return the mean score."""
    processor = AutoProcessor.from_pretrained(REFERENCE_MODEL)
    model = AutoModelForImageTextToText.from_pretrained(REFERENCE_MODEL).eval()
    total = 0.0
    with apply_policy(model, policies, task=task):
        for sample in samples:
            content = [{"type": "image"}, {"type": "text", "text": sample.prompt}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = processor(images=[sample.images[0].open()], text=[text], return_tensors="pt")
            tokens = model.generate(**inputs, do_sample=False, max_new_tokens=8)[:, inputs["input_ids"].shape[1] :]
            answer = processor.batch_decode(tokens, skip_special_tokens=True)[0]
            total += sample.score(answer)
    return total / len(samples)


def main() -> None:
    """Compare the accuracy of every task's policy with the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, required=True)
    path = parser.parse_args().policy
    policies, config = load_policy(path), yaml.safe_load((path.parent / "config.yaml").read_text())
    claims = []
    for task, entry in policies.tasks.items():
        found = accuracy(policies, task, holdout_samples(task, config))
        stated = entry.measured["holdout"]["accuracy"]
        claims.append(Claim(f"{task}: |reproduced - stated accuracy|", abs(found - stated), "", 0.0, "at most"))
    write_result(
        HERE,
        config["seed"],
        claims,
        {"policies": {task: entry.policy.label() for task, entry in policies.tasks.items()}},
    )


if __name__ == "__main__":
    main()
