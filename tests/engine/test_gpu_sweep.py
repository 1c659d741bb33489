"""The GPU experiment's code at a small size on CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from experiments.gpu_sweep_7b.run import Size, run


def test_a_small_sweep_writes_its_claims(tmp_path: Path) -> None:
    size = Size(hidden=32, intermediate=48, layers=4, heads=4, vocabulary=1100, samples=4, batch=2)
    claims = run(size, "cpu", torch.float32, (9,), tmp_path)
    assert claims[0].value > 0
    content = json.loads((tmp_path / "results" / "result.json").read_text())
    assert content["details"]["9"]["summed_kl_nats"] > 0
    assert math.isnan(content["details"]["9"]["peak_memory_bytes"])
    assert len(content["claims"]) == 2
