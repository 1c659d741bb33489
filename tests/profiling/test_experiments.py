"""The timing experiments run at a small size; their numbers mean nothing there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.gpu_llava_7b import run as gpu
from experiments.speed_vs_macs import run as speed
from experiments.timing_noise import run as noise


def claims(folder: Path) -> dict[str, float]:
    content = json.loads((folder / "results/result.json").read_text())
    return {claim["name"]: claim["value"] for claim in content["claims"]}


@pytest.mark.slow
def test_timing_noise(tmp_path: Path) -> None:
    noise.main(["--repetitions", "2", "--rounds", "3", "--out", str(tmp_path)])
    found = claims(tmp_path)
    assert found["A against A called no different"] in (0.0, 0.5, 1.0)
    assert found["stated rate of no difference"] == 0.95


def test_speed_vs_macs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "VISUAL", 40)
    arguments = ["--hidden", "128", "--layers", "10", "--batch", "1", "--rounds", "3", "--threads", "1"]
    speed.main([*arguments, "--out", str(tmp_path)])
    found = claims(tmp_path)
    assert found["time ratio / macs ratio, K = 8, batch 1"] > 0
    assert "time ratio / macs ratio of the layers alone, batch 1" in found


def test_gpu_llava_7b_at_a_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = gpu.small_plan()
    axes = {"batch": [1], "visual_tokens": [12], "prompt_tokens": [8], "output_tokens": [2]}
    monkeypatch.setattr(gpu, "small_plan", lambda: gpu.Plan(
        {"llava_1_5_7b": plan.configs["llava_1_5_7b"]}, (2,), axes, plan.settings, plan.dtype, plan.device
    ))  # fmt: skip
    gpu.main(["--small", "--out", str(tmp_path)])
    assert (tmp_path / "results/llava_1_5_7b-K2.png").exists()
    assert any(name.startswith("speed-up of the whole answer, llava_1_5_7b, K = 2") for name in claims(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is at hand")
def test_gpu_llava_7b_refuses_a_machine_without_gpu(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        gpu.main(["--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_small_run_does_not_pass_for_a_result() -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--small"])
