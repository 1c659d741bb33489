"""Which image-text-to-text architectures of transformers run under a policy? `python -m experiments.model_coverage.run`

Every architecture gets a row. Rows are stored one by one under `results/families`, and the same command continues where
it was stopped; `--again` measures everything anew, `--only TYPE ...` some of them.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.progress import track
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as ARCHITECTURES

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from experiments.model_coverage.table import write_into, write_table
from experiments.model_coverage.tiny import TinyFamily, reductions
from experiments.result import Claim, write_result
from vtw_search.adapters import find_adapter, structural_problem
from vtw_search.conformance import Report, check_model
from vtw_search.errors import VtwError
from vtw_search.files import write_text_atomically

HERE = Path(__file__).parent
ROWS = HERE / "results" / "families"
# The families that the runtime was written for.
NAMED = (
    "llava", "vipllava", "llava_next", "llava_onevision", "llava_next_video", "video_llava", "qwen2_vl", "qwen2_5_vl",
    "qwen3_vl", "internvl", "idefics3", "smolvlm", "gemma3", "paligemma", "mistral3",
)  # fmt: skip


def row_of(model_type: str) -> dict[str, Any]:
    """Return the row of one architecture."""
    began = time.perf_counter()
    try:
        family = find(model_type)
    except ModuleNotFoundError:
        row = {"status": "refused", "reason": refusal(model_type)}
    else:
        row = measured(family)
    return {
        "model_type": model_type,
        "class": ARCHITECTURES[model_type],
        "transformers": transformers.__version__,
        **row,
        "seconds": round(time.perf_counter() - began, 1),
    }


def measured(family: TinyFamily) -> dict[str, Any]:
    """Run the conformance check under both attention implementations."""
    config = family.config()
    row: dict[str, Any] = {"tiny": {name: list(pair) for name, pair in reductions(config).items()}}
    try:
        adapter = find_adapter(family.build())
        facts = adapter.facts(family.build())
    except VtwError as error:
        return {"status": "refused", "reason": str(error), **row}
    row |= {
        "adapter": "generic" if adapter.needs_certificate else "own",
        "layers": facts.num_layers,
        "first_layer": facts.first_layer,
        "last_layer": facts.last_layer,
        "kinds": list(family.kinds),
    }
    reports = {"float32": reports_of(family, torch.float32, ("eager", "sdpa"))}
    if only_rounding(reports["float32"]):
        # Rounding that a model amplifies is told from a mistake by computing in double precision, which transformers
        # does under sdpa; its eager attention computes the softmax in float32 in any case.
        reports["float64"] = reports_of(family, torch.float64, ("sdpa",))
    *_, (dtype, deciding) = reports.items()
    problem = next((f"{name}: {report.problem}" for name, report in deciding.items() if not report.passed), None)
    row |= {"dtype": dtype, "deviations": {name: largest(given.values()) for name, given in reports.items()}}
    return {"status": "refused", "reason": problem, **row} if problem else {"status": "supported", **row}


def largest(reports: Iterable[Report]) -> dict[str, float | None]:
    """Return the largest deviation per contract; None where one failed without a number."""
    found: dict[str, list[float | None]] = {}
    for finding in (finding for report in reports for finding in report.findings):
        found.setdefault(finding.contract, []).append(finding.deviation)
    return {
        contract: None if None in values else max(value for value in values if value is not None)
        for contract, values in found.items()
    }


def reports_of(family: TinyFamily, dtype: torch.dtype, attentions: tuple[str, ...]) -> dict[str, Report]:
    """Return the report per attention implementation."""
    probes = family_probes(family) if dtype == torch.float32 else family_probes(family.in_double())
    return {attention: check_model(family.build(attention, dtype), probes) for attention in attentions}


def only_rounding(reports: dict[str, Report]) -> bool:
    """Tell whether all that failed are deviations below a thousandth."""
    failed = [item for report in reports.values() for item in report.findings if not item.passed]
    return bool(failed) and all(item.deviation is not None and item.deviation < 1e-3 for item in failed)


def refusal(model_type: str) -> str:
    """Return why an architecture without tiny model is refused, from its default config."""
    problem = structural_problem(CONFIG_MAPPING[model_type]())
    if problem is not None:
        return problem
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(CONFIG_MAPPING[model_type]())
    try:
        find_adapter(model)
    except VtwError as error:
        return str(error)
    raise AssertionError(f"{model_type} is not refused, but has no tiny model to test it on")


def main() -> None:
    """Measure what is missing, then write the table and the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    ROWS.mkdir(parents=True, exist_ok=True)
    for model_type in track(sorted(ARCHITECTURES), description="architectures"):
        path = ROWS / f"{model_type}.json"
        wanted = model_type in arguments.only if arguments.only else arguments.again or not path.exists()
        if wanted:
            row = row_of(model_type)
            write_text_atomically(path, json.dumps(row, indent=1) + "\n")
            print(model_type, row["status"], row.get("reason", ""))
    rows = sorted((json.loads(path.read_text()) for path in ROWS.glob("*.json")), key=lambda row: row["model_type"])
    write_table(rows, HERE / "results" / "table.md")
    write_into(HERE.parents[1] / "README.md", rows)
    supported = [row for row in rows if row["status"] == "supported"]
    named = [row for row in rows if row["model_type"] in NAMED]
    # A contract that failed without a number counts as infinitely far off.
    worst = max(
        math.inf if value is None else value for row in named for value in row["deviations"]["float32"].values()
    )
    claims = [
        Claim("architectures with a row", len(rows), "", len(ARCHITECTURES)),
        Claim("architectures supported", len(supported), "", 40),
        Claim("families with an adapter that pass", sum(row["status"] == "supported" for row in named), "", len(NAMED)),
        Claim("largest deviation of those families, relative to the spread of the logits", worst, "", 1e-5, "at most"),
    ]
    write_result(HERE, 0, claims)


if __name__ == "__main__":
    main()
