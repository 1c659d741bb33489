"""Whole searches on tiny random models of other families, through their real processors."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from experiments.model_coverage.families import find
from tests.adapters.processors import FAMILIES, IDEFICS, Family
from vtw_search.config import load_config
from vtw_search.driver import SearchResult, run_search

IDEFICS2 = Family(
    "Idefics2Processor", "Idefics2ImageProcessorPil", IDEFICS["special"], image="<image>", before="<|im_start|>User:",
    after="<end_of_utterance>\nAssistant:", settings={"image_seq_len": 4},
    image_settings={"size": {"longest_edge": 24, "shortest_edge": 16}, "do_image_splitting": False},
)  # fmt: skip


def saved(name: str, family: Family, folder: Path) -> Path:
    find(name).build().save_pretrained(folder)
    family.build().save_pretrained(folder)
    return folder


def search(model: Path, runs: Path) -> tuple[SearchResult, str]:
    output = io.StringIO()
    config = load_config(
        f"model.path={model}", "task=digits_read", "tracking=none", "profile=macs", "model.device=cpu", f"runs={runs}",
        "samples.calibration=4", "samples.selection=4", "samples.holdout=4", "search=tiny",
    )  # fmt: skip
    return run_search(config, Console(file=output, width=200)), output.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma3", "llava_next"])
def test_a_family_with_an_adapter_is_searched_without_certificate(name: str, tmp_path: Path) -> None:
    result, _ = search(saved(name, FAMILIES[name], tmp_path / "model"), tmp_path / "runs")
    assert result.policies.certificate is None
    rows = result.studies[0].rows
    assert len(rows) == result.policies.model.num_layers
    macs = [row.measurement.macs_ratio for row in rows]
    assert macs[0] == 1.0
    assert sorted(macs[1:]) == macs[1:], "the later tokens leave, the more is computed"
    assert macs[1] < 1.0


@pytest.mark.slow
def test_a_family_without_an_adapter_gets_its_certificate_from_the_search(tmp_path: Path) -> None:
    model = saved("idefics2", IDEFICS2, tmp_path / "model")
    result, output = search(model, tmp_path / "runs")
    certificate = result.policies.certificate
    assert certificate is not None
    assert certificate.failed is None
    assert certificate.model_type == "idefics2"
    assert "checking the runtime on this model" in output
    again, output = search(model, tmp_path / "runs")
    assert again.policies.certificate == certificate
    assert "checking the runtime" not in output
