"""One SQLite store for all tests here: creating one takes seconds. Every test has a search folder of its own."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy import Engine, event

from vtw_search.tracking import MlflowTracker, TrackingSettings

CONFIG = {"model": {"name": "reference", "dtype": "float32"}, "seed": 0, "tracking": {"uri": "sqlite:///x.db"}}
COMMAND = "vtw-search model=reference task=digits_read"


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Let SQLite skip its flushes: they are most of the time of a run."""

    def skip(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", skip)
    yield
    event.remove(Engine, "connect", skip)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds `mlflow.db`."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def client(store: Path) -> MlflowClient:
    """What a user of the store would have."""
    with warnings.catch_warnings(action="ignore"):
        return MlflowClient(f"sqlite:///{store}/mlflow.db")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a search; its name is also the search's."""
    return tmp_path / tmp_path.parent.name / tmp_path.name


@pytest.fixture
def new_tracker(store: Path, folder: Path) -> Callable[..., MlflowTracker]:
    """Make a tracker of this test's search, as every run of its command would; a warning fails the test."""

    def make(sweep: str | None = None, **settings: object) -> MlflowTracker:
        uri = f"sqlite:///{store}/mlflow.db"
        return MlflowTracker(TrackingSettings(uri, **settings), folder.name, folder, sweep, warn=pytest.fail)  # type: ignore[arg-type]

    return make


class Runs:
    """Reads what a search left in the store."""

    def __init__(self, client: MlflowClient, search: str) -> None:
        self._client, self._search = client, search
        experiment = client.get_experiment_by_name("vtw-search")
        assert experiment is not None
        self.experiment: str = experiment.experiment_id

    def __call__(self, kind: str, order: str = "attributes.start_time DESC") -> list[Run]:
        query = f"tags.kind = '{kind}' and tags.search = '{self._search}'"
        return list(self._client.search_runs([self.experiment], query, order_by=[order]))

    def names(self, kind: str, order: str = "attributes.start_time DESC") -> list[str]:
        return [str(run.info.run_name) for run in self(kind, order)]


@pytest.fixture
def runs(client: MlflowClient, folder: Path) -> Callable[[], Runs]:
    """Reader of this test's runs, to be called after the first `start`."""
    return lambda: Runs(client, folder.name)
