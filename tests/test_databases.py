"""Files of databases lie where their path says, whatever is in a folder's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from sqlalchemy import create_engine, text

from tests.tracking.conftest import CONFIG
from vtw_search.commands.dashboard import command
from vtw_search.config import load_config
from vtw_search.databases import sqlite_file, sqlite_url
from vtw_search.errors import StoreError
from vtw_search.overrides import text_setting
from vtw_search.search.storage import make_storage
from vtw_search.tracking import MlflowTracker, TrackingSettings

# What SQLAlchemy, Optuna's templates, SQLite, MLflow or a shell may take for something else, and a long one.
NAMES = ["a b%2F?x#y", "é {z}", "-d", "=@:;&,'\"$", "x" * 200, "a%20b", "[*]", "\\"]
names = st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names)
def test_a_database_is_in_its_folder_and_nothing_beside_it(tmp_path: Path, name: str) -> None:
    root = tmp_path / str(abs(hash(name)))
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    url = sqlite_url(folder / "a.db")
    assert sqlite_file(url) == str(folder / "a.db")
    with create_engine(url).connect() as connection:
        connection.execute(text("create table if not exists t (x)"))
    assert files(root) == {name, f"{name}/a.db"}


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://host/db", "mlruns", "file:///x"])
def test_other_urls_are_no_files(url: str) -> None:
    assert sqlite_file(url) is None


@pytest.mark.parametrize("name", NAMES)
def test_studies_of_two_folders_are_two(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(name), Path(name) / "mine"):  # beginning with a dash, too
        storage = make_storage("sqlite", folder, None, 5, lambda text: None).studies
        assert storage.get_all_studies() == []
        storage.create_new_study([], str(folder))
    assert files(tmp_path) == {
        name, f"{name}/mine", *(f"{folder}/{file}" for folder in (name, f"{name}/mine")
                                for file in ("optuna.db", "storage.lock")),
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_tracker_of_a_folder_is_in_it(name: str, tmp_path: Path) -> None:
    config = load_config(text_setting("runs", str(tmp_path / name)))
    settings = TrackingSettings(config.tracking.uri or "")
    assert settings.database_file == tmp_path / name / "mlflow.db"
    location = settings.artifact_location(tmp_path / name / "mine")
    assert location == (tmp_path / name / "mlartifacts").as_uri()


@pytest.mark.slow
def test_mlflow_writes_into_the_folder_alone(tmp_path: Path) -> None:
    runs = tmp_path / "".join(NAMES[:4])
    config = load_config(text_setting("runs", str(runs)))
    tracker = MlflowTracker(TrackingSettings(config.tracking.uri or ""), "s", runs / "s", warn=pytest.fail)
    tracker.start(CONFIG, "vtw-search")
    (runs / "s" / "table.csv").write_text("a\n")
    tracker.finish("FINISHED", [runs / "s" / "table.csv"])
    assert {path.name for path in tmp_path.iterdir()} == {runs.name}
    assert {path.name for path in runs.iterdir()} == {"mlflow.db", ".mlflow.db.lock", "mlartifacts", "s"}
    *_, option, uri = command(runs)
    assert option == "--backend-store-uri"
    client = MlflowClient(uri, uri)
    [experiment] = [each for each in client.search_experiments() if each.name == "vtw-search"]
    [run] = client.search_runs([experiment.experiment_id])
    assert Path(client.download_artifacts(run.info.run_id, "table.csv", str(tmp_path))).read_text() == "a\n"
    assert {path.name for path in tmp_path.iterdir()} == {runs.name, "table.csv"}


def test_a_dashboard_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"needs the store of a search.*make dashboard RUNS="):
        command(tmp_path)


def test_a_plain_folder_is_not_decoded_and_a_file_url_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("a%41", (tmp_path / "a%41").as_uri()):
        assert TrackingSettings(uri).resolved_uri == (tmp_path / "a%41").as_uri()
