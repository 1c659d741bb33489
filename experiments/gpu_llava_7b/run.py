"""Withdrawal at the shapes of two 7B models with random weights. `python -m experiments.gpu_llava_7b.run`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from experiments.model_coverage.families import find
from experiments.result import Claim, write_result
from profilers.regimes import regime_grid
from profilers.timing import ProtocolSettings
from vtw_search import Policy
from vtw_search.adapters import find_adapter
from vtw_search.profiling.architectures import build_random, load_architecture
from vtw_search.profiling.regimes import RegimeRunner
from vtw_search.profiling.rows import RegimeRow
from vtw_search.report.regimes import sentences, write_picture


@dataclass(frozen=True)
class Plan:
    """What is measured: architectures by name, layers K, and the axes of the grid."""

    configs: dict[str, PreTrainedConfig]
    layers: tuple[int, ...]
    axes: dict[str, list[int]]
    settings: ProtocolSettings
    dtype: torch.dtype
    device: torch.device


def full_plan() -> Plan:
    """Return the plan of the README; SystemExit without a CUDA device."""
    if not torch.cuda.is_available():
        raise SystemExit("this experiment needs a CUDA device; --small tries its code on the CPU")
    configs = {name: load_architecture(name) for name in ("llava_1_5_7b", "qwen2_5_vl_7b")}
    axes = {"batch": [1, 8], "visual_tokens": [576, 2880], "prompt_tokens": [64], "output_tokens": [1, 32]}
    return Plan(configs, (8, 16, 24), axes, ProtocolSettings(), torch.bfloat16, torch.device("cuda"))


def small_plan() -> Plan:
    """Return a plan of seconds on the CPU with tiny models of the same families."""
    configs = {"llava_1_5_7b": find("llava").config(), "qwen2_5_vl_7b": find("qwen2_5_vl").config()}
    axes = {"batch": [1, 2], "visual_tokens": [12, 48], "prompt_tokens": [8], "output_tokens": [1, 3]}
    settings = ProtocolSettings(min_rounds=3, min_seconds=0, window=1)
    return Plan(configs, (2, 4), axes, settings, torch.float32, torch.device("cpu"))


def measured(plan: Plan, name: str) -> dict[int, list[RegimeRow]]:
    """Return the rows of one architecture by K."""
    model = build_random(plan.configs[name], device=plan.device, dtype=plan.dtype, attention="sdpa")
    rows = {}
    for layer in plan.layers:
        runner = RegimeRunner(find_adapter(model), model, Policy.withdraw(layer), plan.settings)
        rows[layer] = []
        for row in runner.rows(regime_grid(**plan.axes)):
            print(f"{name}, K = {layer}, {row.regime.label()}: {row.verdict or row.status}")
            rows[layer].append(row)
    return rows


def claims_of(name: str, layer: int, rows: Sequence[RegimeRow]) -> list[Claim]:
    """Return speed-ups and peaks of the regimes that could be measured."""
    claims = []
    for row in rows:
        if row.speedup is None:
            continue
        where = f"{name}, K = {layer}, {row.regime.label()}"
        claims.append(Claim(f"speed-up of the whole answer, {where}", row.speedup.value, ""))
        peaks = [side.peak and (side.peak.allocated_bytes or side.peak.resident_bytes)
                 for side in (row.reference, row.candidate)]  # fmt: skip
        if all(peaks):
            claims.append(Claim(f"peak memory, candidate / reference, {where}", peaks[1] / peaks[0], ""))
    return claims


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write claims and pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny models on the CPU; needs --out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parsed = parser.parse_args(arguments)
    if parsed.small and parsed.out == Path(__file__).parent:
        parser.error("--small needs --out, so that its numbers are not taken for results")
    plan = small_plan() if parsed.small else full_plan()
    claims: list[Claim] = []
    details: dict[str, Any] = {}
    for name in plan.configs:
        found = measured(plan, name)
        for layer, rows in found.items():
            claims += claims_of(name, layer, rows)
            details[f"{name}, K = {layer}"] = {"rows": [row.as_dict() for row in rows], "verdicts": sentences(rows)}
        (parsed.out / "results").mkdir(parents=True, exist_ok=True)
        write_picture([row for rows in found.values() for row in rows], name, parsed.out / "results" / f"{name}.png")
    write_result(parsed.out, 0, claims, details)


if __name__ == "__main__":
    main()
