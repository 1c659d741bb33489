"""Every family of the coverage table passes the contracts again; the usual ones also in the fast tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from experiments.model_coverage import run as coverage
from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from experiments.model_coverage.table import table
from vtw_search.adapters import ADAPTERS, find_adapter
from vtw_search.conformance import Finding, Report, bench, check_model

ROWS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(Path(coverage.ROWS).glob("*.json"))
}
SUPPORTED = [name for name, row in ROWS.items() if row["status"] == "supported"]
REFUSED = [name for name, row in ROWS.items() if row["status"] == "refused"]


def without_numbers(reason: str) -> str:
    """Return a reason without the deviations in it, whose last digits depend on the machine."""
    return re.sub(r"\d\.\de[-+]\d\d", "x", reason)


def assert_passes(
    name: str, attention: str, dtype: torch.dtype = torch.float32, layers: list[int] | None = None
) -> None:
    family = find(name)
    probes = family_probes(family if dtype == torch.float32 else family.in_double())
    report = check_model(family.build(attention, dtype), probes, layers=layers)
    assert report.passed, report.problem


def some_layers(name: str) -> list[int]:
    model = find(name).build()
    possible = find_adapter(model).facts(model).possible_layers
    return [possible[0], possible[len(possible) // 2], possible[-1]]


@pytest.mark.parametrize("name", coverage.NAMED)
def test_a_family_with_an_adapter_passes_at_its_first_middle_and_last_layer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow tests check the same families at every layer with longer answers, and under eager attention."""
    monkeypatch.setattr(bench, "STEPS", 3)
    assert find(name).model_type in ADAPTERS
    assert_passes(name, "sdpa", layers=some_layers(name))


def test_every_named_family_is_checked_at_every_layer_by_the_slow_tests() -> None:
    assert set(coverage.NAMED) <= set(SUPPORTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUPPORTED)
def test_a_row_that_says_supported_passes_again(name: str) -> None:
    in_double = ROWS[name]["dtype"] == "float64"
    assert_passes(name, "sdpa", torch.float64 if in_double else torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SUPPORTED if ROWS[name]["dtype"] == "float32"])
def test_it_passes_under_eager_attention_at_its_first_middle_and_last_layer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eager attention gets another form of mask; what a layer's number changes, sdpa has shown at every layer."""
    monkeypatch.setattr(bench, "STEPS", 3)
    assert_passes(name, "eager", layers=some_layers(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_row_that_says_refused_is_refused_again(name: str) -> None:
    row = coverage.row_of(name)
    assert row["status"] == "refused"
    assert without_numbers(row["reason"]) == without_numbers(ROWS[name]["reason"])


def test_every_architecture_has_a_row_and_every_refusal_a_reason() -> None:
    assert set(ROWS) == set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    assert len(SUPPORTED) >= 40
    assert all(ROWS[name]["reason"] for name in REFUSED)
    assert all(max(ROWS[name]["deviations"][ROWS[name]["dtype"]].values()) <= 1e-5 for name in SUPPORTED)


@pytest.mark.parametrize("name", [name for name in REFUSED if "tiny" not in ROWS[name]])
def test_a_structure_is_refused_for_the_reason_that_its_row_says(name: str) -> None:
    assert coverage.refusal(name) == ROWS[name]["reason"]


def test_a_contract_that_failed_without_a_number_does_not_count_as_exact() -> None:
    passed = Finding("2 removing equals masking", 1e-7, 1e-5, None)
    failed = Finding("2 removing equals masking", None, 1e-5, "RuntimeError: no")
    exact = Finding("4 positions are kept", 0.0, 1e-5, None)
    reports = [Report((passed, exact), (1,)), Report((failed, exact), (1,))]
    for given in (reports, reports[::-1]):
        assert coverage.largest(given) == {"2 removing equals masking": None, "4 positions are kept": 0.0}
    assert coverage.largest(reports[:1])["2 removing equals masking"] == 1e-7


def test_the_readme_shows_the_table() -> None:
    readme = Path(coverage.HERE).parents[1] / "README.md"
    assert table([ROWS[name] for name in sorted(ROWS)]) in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_a_tiny_model_keeps_the_hard_parts(name: str) -> None:
    text: Any = find(name).config().get_text_config(decoder=True)
    assert text.num_hidden_layers >= 6
    kinds = getattr(text, "layer_types", None) or []
    default = getattr(type(text)(), "layer_types", None) or []
    assert set(default) <= set(kinds), "one of every layer type"
    experts = [getattr(text, key, None) for key in ("num_experts", "num_local_experts", "n_routed_experts")]
    assert all(isinstance(count, int) and count >= 4 for count in experts if count)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_a_tiny_model_sees_its_image(name: str) -> None:
    """An oracle on a model that ignores its image would pass whatever is removed."""
    family = find(name)
    model, inputs, other = family.build(), family.inputs([("small",)]), family.inputs([("small",)], seed=1)
    pixels = {key: value for key, value in other.items() if value.is_floating_point()}
    with torch.no_grad():
        logits, changed = (model(**given).logits[:, -3:] for given in (inputs, {**inputs, **pixels}))
    allowed = logits > torch.finfo(logits.dtype).min / 2
    spread, effect = logits[allowed].std(), (logits - changed)[allowed].abs().max()
    assert spread > 0.1
    assert effect > 1e-2 * spread


def test_deepstack_narrows_the_range_and_the_error_names_it() -> None:
    facts = find_adapter(find("qwen3_vl").build()).facts(find("qwen3_vl").build())
    assert facts.first_layer == len(find("qwen3_vl").config().vision_config.deepstack_visual_indexes) > 1
    assert not facts.supports(facts.first_layer - 1)
    assert facts.supports(facts.num_layers)


def test_shared_keys_narrow_the_range() -> None:
    facts = find_adapter(find("gemma3n").build()).facts(find("gemma3n").build())
    assert facts.last_layer < facts.num_layers - 1
    assert not facts.supports(facts.last_layer + 1)
