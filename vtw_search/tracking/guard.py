"""What surrounds calls to MLflow: its environment, its log messages, and the errors that a store can raise."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from vtw_search.tracking.params import cut, redact
from vtw_search.tracking.settings import TrackingSettings

# Beside OSError, which holds sockets, files and everything of requests. MLflow wraps most errors of its stores, but not
# those of a database's or a cloud storage's client. A module that is not loaded cannot have raised anything.
_LIBRARY_ERRORS = (
    ("mlflow.exceptions", "MlflowException"),
    ("sqlalchemy.exc", "SQLAlchemyError"),
    ("alembic.util.exc", "CommandError"),
    ("urllib3.exceptions", "HTTPError"),
    ("boto3.exceptions", "Boto3Error"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("google.api_core.exceptions", "GoogleAPIError"),
)
_LOGGERS = ("mlflow", "alembic", "urllib3")
_DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def store_errors() -> tuple[type[Exception], ...]:
    """Return what a store raises when it does not answer, refuses, or is broken: nothing that a mistake of ours raises.

    ImportError is in it because the client of a database or a cloud storage is loaded when the store is opened.
    """
    loaded = ((sys.modules.get(module), name) for module, name in _LIBRARY_ERRORS)
    found = (getattr(module, name, None) for module, name in loaded if module is not None)
    return (OSError, ImportError, sqlite3.Error, *(error for error in found if error is not None))


def cause_of(error: BaseException, outer: BaseException | None = None) -> str:
    """Return in one line, without secrets, why `error` happened.

    Args:
        error: what a store raised.
        outer: what was already being handled before the call; it is not a cause.
    """
    told, link = error, error.__cause__ or error.__context__
    while link is not None and link is not outer:
        told = link if isinstance(link, OSError) else told
        link = link.__cause__ or link.__context__
    return cut(redact((str(told).splitlines() or [""])[0]) or type(told).__name__, 400)


@contextmanager
def mlflow_environment(settings: TrackingSettings) -> Iterator[None]:
    """Let MLflow give up in time and keep quiet, and put everything back afterwards."""
    # The warnings are MLflow's to its developers.
    with _environment(_variables(settings)), warnings.catch_warnings(action="ignore"):
        # First, because the import sets the levels of its loggers.
        import mlflow  # noqa: F401

        with _silence():
            yield


def _variables(settings: TrackingSettings) -> dict[str, str]:
    # Two attempts share the time: one dropped connection should not end the tracking of a long search.
    attempts = 2 if settings.timeout_s >= 2 else 1
    variables = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(settings.timeout_s / attempts))),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(attempts - 1),
        "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
        # A busy server may ask for an hour.
        "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # MLflow reports its use to its makers; a search sends nothing but to the store that was named.
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return variables | ({"MLFLOW_ALLOW_FILE_STORE": "true"} if settings.is_folder else {})


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silence() -> Iterator[None]:
    # All of it, tracebacks included: an error is told once, by the tracker.
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def check_database(settings: TrackingSettings) -> None:
    """Fail at once where a database is broken or away: MLflow would try for 100 seconds.

    Raises:
        sqlite3.Error: the SQLite file is not a database.
        OSError: nothing listens at the database's address.
    """
    if (file := settings.database_file) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA schema_version")
    parts = urlsplit(settings.uri)
    port = _DEFAULT_PORTS.get(parts.scheme.partition("+")[0])
    if port is not None and parts.hostname:
        socket.create_connection((parts.hostname, parts.port or port), settings.timeout_s).close()
