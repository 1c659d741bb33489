"""A search checks a model of a family without adapter once, and again when what it stored no longer holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import family_probes
from vtw_search.adapters import find_adapter
from vtw_search.conformance import certify
from vtw_search.errors import ModelError
from vtw_search.evaluation.model import LoadedModel
from vtw_search.policies import Certificate, read_certificate
from vtw_search.search import certificate as module
from vtw_search.search.certificate import model_certificate

pytestmark = pytest.mark.usefixtures("few_steps")

NAME = "aya_vision"


@pytest.fixture(scope="module")
def found() -> Certificate:
    return certify(find(NAME).build(), probes=family_probes(find(NAME)))


@pytest.fixture
def loaded() -> LoadedModel:
    model = find(NAME).build()
    adapter = find_adapter(model)
    return LoadedModel(model, None, adapter, adapter.facts(model), {})


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch, found: Certificate) -> list[Any]:
    """Stand in for the check, which takes seconds, and note its calls."""
    calls: list[Any] = []

    def check(model: Any, processor: Any) -> Certificate:
        calls.append(model)
        return found

    monkeypatch.setattr(module, "certify", check)
    return calls


def test_a_certificate_is_made_once(loaded: LoadedModel, checks: list[Any], found: Certificate, tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        assert model_certificate(loaded, tmp_path, said.append) == found
    assert len(checks) == len(said) == 1
    assert NAME in said[0]
    assert read_certificate(tmp_path / "certificate.json") == found


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: text.replace('"sdpa"', '"eager"'),
        lambda text: text.replace('"failed": null', '"failed": "2 removing equals masking: deviation 0.3"'),
        lambda text: text.replace("    7\n", "    6\n"),
    ],
    ids=["truncated", "empty", "something else", "other attention", "failed", "not all layers"],
)
def test_one_that_no_longer_holds_is_made_anew(
    loaded: LoadedModel, checks: list[Any], found: Certificate, tmp_path: Path, spoil: Any
) -> None:
    text = found.model_dump_json(indent=2)
    assert spoil(text) != text
    said: list[str] = []
    (tmp_path / "certificate.json").write_text(spoil(text))
    assert model_certificate(loaded, tmp_path, said.append) == found
    assert len(checks) == 1
    assert "certificate" in said[0]
    assert read_certificate(tmp_path / "certificate.json") == found


def test_a_failed_check_is_stored_and_run_again_the_next_time(
    loaded: LoadedModel, found: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [found.model_copy(update={"failed": "5 rows are independent: deviation 0.1"}), found]
    monkeypatch.setattr(module, "certify", lambda model, processor: results.pop(0))
    with pytest.raises(ModelError, match="rows are independent"):
        model_certificate(loaded, tmp_path, print)
    assert model_certificate(loaded, tmp_path, print) == found


def test_a_family_with_an_adapter_needs_none(checks: list[Any], tmp_path: Path) -> None:
    model = find("llava").build()
    adapter = find_adapter(model)
    loaded = LoadedModel(model, None, adapter, adapter.facts(model), {})
    assert model_certificate(loaded, tmp_path, print) is None
    assert not checks
    assert not list(tmp_path.iterdir())
