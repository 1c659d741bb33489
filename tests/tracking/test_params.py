"""Names and values as MLflow takes them, and settings that are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import (
    MAX_ENTITY_KEY_LENGTH,
    MAX_PARAM_VAL_LENGTH,
    MAX_TAG_VAL_LENGTH,
    _validate_param,
    _validate_tag,
)

from vtw_search.errors import ConfigError
from vtw_search.tracking import TrackingSettings, redact
from vtw_search.tracking.params import (
    MAX_KEY_LENGTH,
    MAX_PARAM_LENGTH,
    MAX_TAG_LENGTH,
    config_params,
    cut,
    legal_name,
    numbers,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pass@host:5000/x", "http://***@host:5000/x"),
        ("https://token@host", "https://***@host"),
        ("postgresql+psycopg2://u:p@ss/w:rd@host/db", "postgresql+psycopg2://***@host/db"),
        ("http://host/x?api_key=abc&page=2", "http://host/x?api_key=***&page=2"),
        ("failed with http://a:b@h and http://c:d@h", "failed with http://***@h and http://***@h"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("https://host/models/a@main.json", "https://host/models/a@main.json"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(st.text("abc:/@%.-"))
def test_no_password_survives(noise: str) -> None:
    assert "hunter2" not in redact(f"see http://a{noise}:hunter2@host/x")


@given(st.text())
def test_every_name_becomes_legal(name: str) -> None:
    assert 0 < len(legal_name(name)) <= MAX_KEY_LENGTH
    # MLflow's own checks raise.
    _validate_param(legal_name(name), "value")  # type: ignore[no-untyped-call]
    _validate_tag(legal_name(name), "value")  # type: ignore[no-untyped-call]


def test_the_limits_are_those_of_mlflow() -> None:
    assert (MAX_KEY_LENGTH, MAX_PARAM_LENGTH, MAX_TAG_LENGTH) == (
        MAX_ENTITY_KEY_LENGTH,
        MAX_PARAM_VAL_LENGTH,
        MAX_TAG_VAL_LENGTH,
    )


@given(st.text(), st.integers(40, 60))
def test_cut_keeps_within_the_limit(text: str, length: int) -> None:
    assert len(cut(text, length)) <= length
    assert cut(text, length) == text or "cut" in cut(text, length)


def test_configurations_become_flat() -> None:
    config = {"limits": {"kl_nats": 0.01, "none": {}}, "tasks": ["a", "b"], "seed": None, "hydra": {"job": 1}}
    assert config_params(config) == {
        "limits.kl_nats": "0.01",
        "limits.none": "{}",
        "tasks": '["a", "b"]',
        "seed": "null",
    }
    assert json.loads(config_params(config)["tasks"]) == ["a", "b"]


def test_the_interval_of_a_single_image_is_no_metric() -> None:
    alone = {"value": 0.5, "low": -math.inf, "high": math.inf, "gap": 0.1}
    found = numbers({"limits": {"kl_nats[digits=4]": alone}})
    assert found == {"limits.kl_nats[digits=4].value": 0.5, "limits.kl_nats[digits=4].gap": 0.1}


def test_only_numbers_become_metrics() -> None:
    assert numbers({"a": 1, "b": {"c": 0.5, "d": "x"}, "e": True, "f": None}) == {"a": 1.0, "b.c": 0.5, "e": 1.0}


@pytest.mark.parametrize(
    "values",
    [
        {"uri": ""},
        {"uri": "http://[bad"},
        {"uri": "http://host:port"},
        {"uri": "x", "experiment": " "},
        {"uri": "x", "timeout_s": 0.0},
        {"uri": "x", "max_candidates": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="tracking"):
        TrackingSettings(**values)  # type: ignore[arg-type]


def test_a_refused_uri_is_redacted() -> None:
    with pytest.raises(ConfigError) as error:
        TrackingSettings("http://me:s3cret@host:x")
    assert "s3cret" not in str(error.value)


def test_paths_do_not_depend_on_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here, file = tmp_path.as_uri(), TrackingSettings("sqlite:///runs/mlflow.db?timeout=5")
    assert file.resolved_uri == f"sqlite+pysqlite:///{tmp_path}/runs/mlflow.db?timeout=5"
    assert file.artifact_location(Path("elsewhere/s")) == f"{here}/runs/mlartifacts"
    assert TrackingSettings("postgresql://host/db").artifact_location(Path("runs/s")) == f"{here}/runs/mlartifacts"
    assert TrackingSettings("http://host").artifact_location(Path("runs/s")) is None
    assert TrackingSettings("mlruns").resolved_uri == f"{here}/mlruns"
    assert TrackingSettings("databricks").resolved_uri == "databricks"
