"""Where a search is tracked, and what MLflow has to be told about that place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy import make_url

from vtw_search.databases import sqlite_file
from vtw_search.errors import ConfigError
from vtw_search.files import with_home
from vtw_search.tracking.params import redact

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# Words that MLflow takes for a service although they look like a folder's name.
_SERVICES = ("databricks", "databricks-uc", "uc")


@dataclass(frozen=True)
class TrackingSettings:
    """Where runs go.

    Attributes:
        uri: an SQLite file (`sqlite:///runs/mlflow.db`), a server (`http://...`), another database, or a folder.
        experiment: name of the MLflow experiment.
        timeout_s: how long one call may wait for a server.
        max_candidates: how many candidates of a study get a run; the front and keep-all come first.

    Raises:
        ConfigError: a value cannot be used.
    """

    uri: str
    experiment: str = "vtw-search"
    timeout_s: float = 10.0
    max_candidates: int = 200

    def __post_init__(self) -> None:
        remedy = "for example sqlite:///runs/mlflow.db or http://127.0.0.1:5000, or tracking=none to leave it out"
        if not self.uri or not _is_uri(self.uri):
            raise ConfigError("tracking.uri must be a URI", value=redact(self.uri), remedy=remedy)
        if not self.experiment.strip():
            raise ConfigError("tracking.experiment must be a name", value=self.experiment)
        if not self.timeout_s > 0:
            raise ConfigError("tracking.timeout_s must be above 0", value=self.timeout_s)
        if self.max_candidates < 1:
            raise ConfigError("tracking.max_candidates must be at least 1", value=self.max_candidates)

    @property
    def shown_uri(self) -> str:
        """The URI without user and password, for messages and files."""
        return redact(self.uri)

    @property
    def database_file(self) -> Path | None:
        """Absolute path of the SQLite file; None for every other store, one in memory included."""
        path = sqlite_file(self.uri)
        return None if path is None else Path(with_home(path)).absolute()

    @property
    def is_folder(self) -> bool:
        """Whether runs go to MLflow's file store, which has to be allowed explicitly since MLflow 3."""
        return urlsplit(self.uri).scheme in ("", "file") and self.uri not in _SERVICES

    @property
    def resolved_uri(self) -> str:
        """The URI with a path that does not depend on the current folder."""
        if (file := self.database_file) is not None:
            # With the driver's name in it, for MLflow makes the folder of what follows a plain `sqlite:///`, quoted.
            url = make_url(self.uri).set(drivername="sqlite+pysqlite", database=str(file))
            return url.render_as_string(hide_password=False)
        if self.is_folder:
            parts = urlsplit(self.uri)
            return Path(url2pathname(parts.path) if parts.scheme else with_home(self.uri)).absolute().as_uri()
        return self.uri

    def artifact_location(self, folder: Path) -> str | None:
        """Return where a new experiment keeps its files, or None where the server decides.

        A database has no place for files; MLflow would put them into `mlruns` in the current folder.

        Args:
            folder: the search's folder; a database that is not a file gets a folder beside it.
        """
        if urlsplit(self.uri).scheme.partition("+")[0] not in _DATABASES:
            return None
        beside = folder.absolute() if self.database_file is None else self.database_file
        return (beside.parent / "mlartifacts").as_uri()


def _is_uri(text: str) -> bool:
    try:
        return urlsplit(text).port != 0
    except ValueError:
        return False
