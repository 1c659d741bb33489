"""Withdrawal at the shapes of two 7B models with random weights. `python -m experiments.gpu_llava_7b.run`"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from experiments.model_coverage.families import find
from experiments.result import Claim, write_result
from profilers.protocol import ProtocolSettings
from profilers.regimes import regime_grid
from vtw_search import Policy
from vtw_search.adapters import find_adapter
from vtw_search.files import write_text_atomically
from vtw_search.profiling.architectures import build_random, load_architecture
from vtw_search.profiling.regimes import RegimeRunner
from vtw_search.profiling.rows import RegimeRow
from vtw_search.report.regimes import sentences, write_picture

LAYERS, VISUAL = (8, 16, 24), (576, 2880)


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
    axes = {"batch": [1, 8], "visual_tokens": list(VISUAL), "prompt_tokens": [64], "output_tokens": [16]}
    settings = ProtocolSettings(min_rounds=6)
    return Plan(configs, LAYERS, axes, settings, torch.bfloat16, torch.device("cuda"))


def small_plan() -> Plan:
    """Return a plan of seconds on the CPU with tiny models of the same families."""
    configs = {"llava_1_5_7b": find("llava").config(), "qwen2_5_vl_7b": find("qwen2_5_vl").config()}
    axes = {"batch": [1, 2], "visual_tokens": [12, 48], "prompt_tokens": [8], "output_tokens": [3]}
    settings = ProtocolSettings(min_rounds=3, min_seconds=0, window=1)
    return Plan(configs, (2, 4), axes, settings, torch.float32, torch.device("cpu"))


def measured(plan: Plan, name: str, layers: Sequence[int], results: Path) -> None:
    """Measure one architecture; what is known is written after every row, so that an end too early loses nothing."""
    model = build_random(plan.configs[name], device=plan.device, dtype=plan.dtype, attention="sdpa")
    for layer in layers:
        rows = list[RegimeRow]()
        runner = RegimeRunner(find_adapter(model), model, Policy.withdraw(layer), plan.settings)
        for row in runner.rows(regime_grid(**plan.axes)):
            print(f"{name}, K = {layer}, {row.regime.label()}: {row.verdict or row.status}", flush=True)
            rows.append(row)
            part = {
                "claims": [asdict(claim) for claim in claims_of(name, layer, rows)],
                "details": {"rows": [each.as_dict() for each in rows], "verdicts": sentences(rows)},
            }
            write_text_atomically(results / "parts" / f"{name}, K = {layer}.json", json.dumps(part) + "\n")
        write_picture(rows, f"{name}, K = {layer}", results / f"{name}-K{layer}.png")


def claims_of(name: str, layer: int, rows: Sequence[RegimeRow]) -> list[Claim]:
    """Return speed-ups and peaks of the regimes that could be measured."""
    claims = []
    for row in rows:
        if row.speedup is None or row.phases is None:
            continue
        where, many = f"{name}, K = {layer}, {row.regime.label()}", row.regime.batch > 1
        reference, candidate = row.phases.prefill.medians()
        decoder = [side.prefill.total - side.prefill.vision - side.prefill.projector
                   for side in (row.reference, row.candidate)]  # fmt: skip
        over = candidate / reference / (decoder[1] / decoder[0])
        claims.append(Claim(f"decoder's prefill, time ratio / macs ratio, {where}", over, "",
                            1.1 if many else None, "at most"))  # fmt: skip
        deepest = many and layer == min(LAYERS) and row.regime.visual_tokens == max(VISUAL)
        claims.append(Claim(f"speed-up of the whole answer, {where}", row.speedup.value, "", 1.0 if deepest else None))
        if row.decode_speedup is not None:
            claims.append(Claim(f"speed-up of a decode step, {where}", row.decode_speedup.value, ""))
        peaks = [side.peak and (side.peak.allocated_bytes or side.peak.resident_bytes)
                 for side in (row.reference, row.candidate)]  # fmt: skip
        if all(peaks):
            claims.append(Claim(f"peak memory, candidate / reference, {where}", peaks[1] / peaks[0], "", 1.0,
                                "at most"))  # fmt: skip
    return claims


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write claims and pictures; what earlier runs measured stays in the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny models on the CPU; needs --out")
    parser.add_argument("--models", nargs="+", help="some of the architectures")
    parser.add_argument("--layers", nargs="+", type=int, help="some of the layers K")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parsed = parser.parse_args(arguments)
    if parsed.small and parsed.out == Path(__file__).parent:
        parser.error("--small needs --out, so that its numbers are not taken for results")
    plan = small_plan() if parsed.small else full_plan()
    results = parsed.out / "results"
    (results / "parts").mkdir(parents=True, exist_ok=True)
    for name in parsed.models or plan.configs:
        measured(plan, name, parsed.layers or plan.layers, results)
    parts = {path.stem: json.loads(path.read_text()) for path in sorted((results / "parts").glob("*.json"))}
    claims = [Claim(**claim) for part in parts.values() for claim in part["claims"]]
    write_result(parsed.out, 0, claims, {name: part["details"] for name, part in parts.items()})


if __name__ == "__main__":
    main()
