"""Runs of one MLflow experiment: found again, created when missing, written only where they differ."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vtw_search.locks import WAIT_S, locked
from vtw_search.tracking.guard import check_database
from vtw_search.tracking.params import MAX_PARAM_LENGTH, MAX_TAG_LENGTH, cut, legal_name
from vtw_search.tracking.settings import TrackingSettings
from vtw_search.tracking.views import experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_Value = TypeVar("_Value")
_PARENT = "mlflow.parentRunId"
# MLflow's limit for the params of one batch.
_BATCH = 100


@dataclass(frozen=True)
class RunContent:
    """What a run shows.

    Attributes:
        name: its name.
        tags, params, metrics: MLflow's three kinds of values; a param can never be changed.
        status: FINISHED, FAILED, KILLED or RUNNING.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    status: str = "FINISHED"

    def legal(self) -> RunContent:
        """Return it with names and lengths that MLflow accepts."""
        return RunContent(
            cut(self.name, MAX_TAG_LENGTH),
            {legal_name(key): cut(value, MAX_TAG_LENGTH) for key, value in self.tags.items()},
            {legal_name(key): cut(value, MAX_PARAM_LENGTH) for key, value in self.params.items()},
            {legal_name(key): value for key, value in self.metrics.items()},
            self.status,
        )


class RunStore:
    """The runs of one experiment. Every method may raise what `guard.store_errors` lists."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client, self._experiment = client, experiment_id

    @classmethod
    def open(cls, settings: TrackingSettings, folder: Path) -> RunStore:
        """Connect, and create the experiment if it does not exist. The first use of an SQLite file takes seconds."""
        from mlflow import MlflowClient

        check_database(settings)
        with _alone(settings):
            # The registry holds models and is not used; its default would be another store, in the current folder.
            client = MlflowClient(settings.resolved_uri, settings.resolved_uri)
            return cls(client, _experiment(client, settings.experiment, settings.artifact_location(folder)))

    def run(self, run_id: str) -> Run:
        """Return a run that exists."""
        return self._client.get_run(run_id)

    def tagged(self, tag: str, value: str) -> list[Run]:
        """Return the runs with this value of a tag, oldest first, without those that a user deleted.

        Args:
            tag: name of the tag.
            value: without quotes, such as a run id.
        """
        return list(self._search(f"tags.`{tag}` = '{value}'"))

    def children(self, parent: str) -> list[Run]:
        """Return the runs directly under `parent`, oldest first."""
        return self.tagged(_PARENT, parent)

    def _search(self, query: str) -> Iterator[Run]:
        token: str | None = None
        while token != "":
            order = ["attributes.start_time ASC"]
            page = self._client.search_runs([self._experiment], query, order_by=order, page_token=token)
            yield from page
            token = page.token or ""

    def create(self, content: RunContent, parent: str | None = None) -> Run:
        """Create a run with the tags of `content`; its params and metrics come with `write`."""
        legal = content.legal()
        nested = {} if parent is None else {_PARENT: parent}
        return self._client.create_run(self._experiment, tags={**legal.tags, **nested}, run_name=legal.name)

    def write(self, run: Run, content: RunContent) -> None:
        """Make `run` show `content`. What it already shows is not sent again; its status comes last."""
        from mlflow.entities import Metric, Param, RunTag

        legal, now = content.legal(), int(time.time() * 1000)
        metrics = [Metric(key, value, now, 0) for key, value in _news(legal.metrics, run.data.metrics)]
        params = [Param(key, value) for key, value in legal.params.items() if key not in run.data.params]
        tags = [RunTag(key, value) for key, value in _news(legal.tags, run.data.tags)]
        if metrics or params or tags:
            self._client.log_batch(run.info.run_id, metrics, params[:_BATCH], tags, synchronous=True)
        for start in range(_BATCH, len(params), _BATCH):
            self._client.log_batch(run.info.run_id, params=params[start : start + _BATCH], synchronous=True)
        if run.info.run_name != legal.name:
            self._client.update_run(run.info.run_id, name=legal.name)
        self._set_status(run, legal.status)

    def _set_status(self, run: Run, status: str) -> None:
        if status == run.info.status:
            return
        if status == "RUNNING":
            self._client.update_run(run.info.run_id, status=status)
        else:
            self._client.set_terminated(run.info.run_id, status)

    def add_files(self, run_id: str, paths: Sequence[Path]) -> None:
        """Copy files, and folders under their names, to the run's artifacts; a copy that is there is replaced."""
        for path in paths:
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), path.name)
            else:
                self._client.log_artifact(run_id, str(path))

    def delete(self, run: Run) -> None:
        """Take a run out of sight; MLflow can restore it."""
        self._client.delete_run(run.info.run_id)


def _alone(settings: TrackingSettings) -> AbstractContextManager[object]:
    """Keep parallel searches from creating the tables of one SQLite file; MLflow's own lock does not."""
    file = settings.database_file
    return nullcontext() if file is None else locked(file.with_name(f".{file.name}.lock"), "MLflow's database", WAIT_S)


def _experiment(client: MlflowClient, name: str, location: str | None) -> str:
    found = client.get_experiment_by_name(name) or _new_experiment(client, name, location)
    # Only what is missing: a user may have changed a view.
    for key, value in experiment_tags().items():
        if key not in found.tags:
            client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def _new_experiment(client: MlflowClient, name: str, location: str | None) -> Experiment:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(client.create_experiment(name, location, experiment_tags()))
    except MlflowException:
        # A search beside this one may have been faster.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found


def _news(wanted: Mapping[str, _Value], there: Mapping[str, _Value]) -> list[tuple[str, _Value]]:
    return [(key, value) for key, value in wanted.items() if there.get(key) != value]
