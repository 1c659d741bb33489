"""Rate at which the timing calls a prefill no different from itself. `python -m experiments.timing_noise.run`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from experiments.result import Claim, write_result
from profilers.protocol import ProtocolSettings
from profilers.regimes import Regime
from profilers.stopwatch import Work, plain, stopwatch_of
from profilers.timing import Compared, compare
from vtw_search import Policy
from vtw_search.evaluation.model import load_model
from vtw_search.profiling.works import RegimeWorks

STATED, EXTRA_PARTS = 0.95, 10


def prefills() -> tuple[Work, Work]:
    """Return the prefill of the embedded model, and the same with a tenth more work: every tenth call is made twice."""
    loaded = load_model("reference")
    regime = Regime(batch=EXTRA_PARTS, visual_tokens=64, prompt_tokens=24, output_tokens=1)
    whole, part = (
        RegimeWorks(loaded.adapter, loaded.model, Policy.keep_all(), Regime(batch, 64, 24, 1)).prefill(False)
        for batch in (regime.batch, 1)
    )

    @torch.inference_mode()
    def more() -> None:
        for work in (whole, part):
            with work() as call:
                call()

    return whole, plain(more)


def repeated(reference: Work, candidate: Work, repetitions: int, rounds: int, label: str) -> list[Compared]:
    """Return as many whole measurements, each with its own seed."""
    watch = stopwatch_of("cuda" if torch.cuda.is_available() else "cpu")
    return [
        compare(reference, {"B": candidate}, watch, ProtocolSettings(rounds, 0.0, seed=seed))["B"]
        for seed in track(range(repetitions), description=label)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parsed = parser.parse_args(arguments)
    whole, more = prefills()
    same = repeated(whole, whole, parsed.repetitions, parsed.rounds, "A against A")
    other = repeated(whole, more, parsed.repetitions, parsed.rounds, "A against A and a tenth")
    found = sum(each.ratio.low > 1 for each in other) / len(other)
    claims = [
        Claim("A against A called no different", sum(each.no_difference for each in same) / len(same), "", 0.90),
        Claim("A against A and a tenth called slower", found, "", 0.90),
        Claim("stated rate of no difference", STATED, ""),
    ]
    write_result(parsed.out, 0, claims, {"A/A": _details(same), "A/B": _details(other)})


def _details(measured: list[Compared]) -> list[dict[str, Any]]:
    return [
        {"ratio": each.ratio.value, "low": each.ratio.low, "high": each.ratio.high, "problems": list(each.problems)}
        for each in measured
    ]


if __name__ == "__main__":
    main()
