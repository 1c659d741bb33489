"""What a search calls to be tracked. A store that does not answer never stops it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from vtw_search.results import StudyResult
from vtw_search.tracking.content import SearchLabel
from vtw_search.tracking.guard import cause_of, mlflow_environment, store_errors
from vtw_search.tracking.settings import TrackingSettings
from vtw_search.tracking.store import RunStore
from vtw_search.tracking.tree import SearchTree, search_key
from vtw_search.transfer import Sharing

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(Protocol):
    """Follows one search: `start`, then `log_study` per task, `log_sharing`, then `finish`."""

    def start(self, config: Mapping[str, Any], command: str) -> None:
        """Begin, or go on with, the run of the search; `config` is the resolved configuration."""

    def log_study(self, result: StudyResult, artifacts: Sequence[Path] = ()) -> None:
        """Log a task's result, its candidates and its files; logging it again updates it."""

    def log_sharing(self, sharing: Sharing | None) -> None:
        """Log how the tasks' policies do on each other's tasks, and one policy for all; nothing for a single task."""

    def finish(self, status: Status, artifacts: Sequence[Path] = ()) -> None:
        """Log the search's own files and how it ended."""


class NoTracker:
    """The tracker of `tracking=none`."""

    def start(self, config: Mapping[str, Any], command: str) -> None:
        """Do nothing."""

    def log_study(self, result: StudyResult, artifacts: Sequence[Path] = ()) -> None:
        """Do nothing."""

    def log_sharing(self, sharing: Sharing | None) -> None:
        """Do nothing."""

    def finish(self, status: Status, artifacts: Sequence[Path] = ()) -> None:
        """Do nothing."""


class MlflowTracker:
    """Tracks a search in MLflow. After the first error of the store it warns once and leaves the store alone.

    Args:
        settings: where to.
        search: name of the search.
        folder: its folder; `tracking.json` in it remembers the runs.
        sweep: name of the multirun it belongs to.
        warn: takes the one warning.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        search: str,
        folder: Path,
        sweep: str | None = None,
        *,
        warn: Callable[[str], None],
    ) -> None:
        self._settings, self._folder, self._warn = settings, folder, warn
        self._label = SearchLabel(search, search_key(folder), sweep)
        self._tree: SearchTree | None = None
        self._gave_up = False

    def start(self, config: Mapping[str, Any], command: str) -> None:
        """Create or resume the run of the search."""

        def connect() -> None:
            store = RunStore.open(self._settings, self._folder)
            self._tree = SearchTree(store, self._settings, self._label, self._folder)
            self._tree.start(config, command)

        self._attempt(connect)

    def log_study(self, result: StudyResult, artifacts: Sequence[Path] = ()) -> None:
        """Log a task's result, its candidates and its files."""
        self._attempt(lambda: self._started().add_study(result, artifacts))

    def log_sharing(self, sharing: Sharing | None) -> None:
        """Log how the tasks' policies do on each other's tasks, and one policy for all; nothing for a single task."""
        self._attempt(lambda: self._started().add_sharing(sharing))

    def finish(self, status: Status, artifacts: Sequence[Path] = ()) -> None:
        """Log the search's own files and how it ended."""
        self._attempt(lambda: self._started().finish(status, artifacts))

    def _started(self) -> SearchTree:
        if self._tree is None:
            raise RuntimeError("start() comes before every other call of a tracker")
        return self._tree

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._gave_up:
            return
        outer = sys.exception()
        try:
            with mlflow_environment(self._settings):
                action()
        except store_errors() as error:
            # Every further call would wait for its own time-out.
            self._gave_up = True
            self._warn(self._message(cause_of(error, outer)))

    def _message(self, cause: str) -> str:
        return (
            f"MLflow at {self._settings.shown_uri} cannot be used ({cause}). The search goes on without it, and "
            f"everything is kept in {self._folder}; run the same command again to log it later."
        )
