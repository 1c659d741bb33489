"""Per-sample values of the shipped model: `python -m experiments.limit_simulations.values`."""

from __future__ import annotations

import json
from pathlib import Path

from vtw_search.engine import BatchEvaluator, batches
from vtw_search.evaluation.model import load_model
from vtw_search.evaluation.tasks import load_pools
from vtw_search.files import write_text_atomically
from vtw_search.policies import Policy

PATH = Path(__file__).parent / "results" / "reference_values.json"
TASK, LAYERS = "digits_read", (9, 10, 11)


def main() -> None:
    """Score three withdrawals on the 600 calibration samples of digits_read, one image each."""
    loaded = load_model("reference", device="cpu")
    policies = [Policy.keep_all(), *map(Policy.withdraw, LAYERS)]
    rows: dict[str, list[tuple[float, float]]] = {policy.label(): [] for policy in policies}
    for start, batch in batches(load_pools(TASK, {})["calibration"], 50):
        evaluator = BatchEvaluator(loaded, batch, "calibration", start, max_new_tokens=8)
        for policy in policies:
            records = evaluator.records(policy)
            rows[policy.label()] += [(record.kl_answer_nats, record.score) for record in records]  # type: ignore[misc]
    kept = rows.pop("keep-all")
    values = {
        label: {
            "kl_nats": [round(kl, 7) for kl, _ in found],
            "drop": [reference - score for (_, reference), (_, score) in zip(kept, found, strict=True)],
        }
        for label, found in rows.items()
    }
    write_text_atomically(PATH, json.dumps({"task": TASK, "split": "calibration", "values": values}) + "\n")


if __name__ == "__main__":
    main()
