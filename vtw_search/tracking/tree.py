"""The runs of one search: parent, studies, candidates. Logging the same search again completes them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtw_search.files import write_text_atomically
from vtw_search.results import StudyResult
from vtw_search.tracking.content import (
    KEY_TAG,
    KIND_TAG,
    POLICY_TAG,
    TASK_TAG,
    SearchLabel,
    candidate_content,
    search_content,
    shown_rows,
    study_content,
)
from vtw_search.tracking.params import config_params
from vtw_search.tracking.settings import TrackingSettings
from vtw_search.tracking.store import RunContent, RunStore
from vtw_search.transfer import Sharing

if TYPE_CHECKING:
    from mlflow.entities import Run

MEMORY = "tracking.json"


class SearchTree:
    """Writes the runs of a search. Every method may raise what `guard.store_errors` lists."""

    def __init__(self, store: RunStore, settings: TrackingSettings, label: SearchLabel, folder: Path) -> None:
        self._store, self._settings, self._label, self._folder = store, settings, label, folder
        self._config: Mapping[str, Any] = {}
        self._command, self._parent = "", ""
        self._studies: dict[str, StudyResult] = {}
        self._sharing: Sharing | None = None
        self._study_ids: dict[str, str] = {}

    def start(self, config: Mapping[str, Any], command: str) -> None:
        """Create the parent run, or go on with the one that has this key and these params."""
        self._config, self._command = config, command
        # A param cannot be changed: with another configuration, the search gets another parent.
        params = RunContent("", {}, config_params(config)).legal().params
        earlier = self._store.tagged(KEY_TAG, self._label.key)
        known = [run for run in earlier if run.data.params.items() <= params.items()]
        # Before the run exists: a kill between the two must not lose it.
        self._remember()
        content = self._content("RUNNING")
        parent = known[0] if known else self._store.create(content)
        self._parent = parent.info.run_id
        self._remember()
        self._store.write(parent, content)

    def _content(self, status: str) -> RunContent:
        studies = list(self._studies.values())
        return search_content(self._label, self._config, self._command, studies, status, self._sharing)

    def _remember(self) -> None:
        runs = {"search": self._parent, "studies": self._study_ids}
        place = {"uri": self._settings.shown_uri, "experiment": self._settings.experiment}
        memory = {"key": self._label.key, **place, "runs": runs}
        write_text_atomically(self._folder / MEMORY, json.dumps(memory, indent=2) + "\n")

    def add_study(self, result: StudyResult, artifacts: Sequence[Path]) -> None:
        """Write the run of a study and those of its candidates, then its line in the parent."""
        rows = shown_rows(result.rows, self._settings.max_candidates)
        study = self._study_run(study_content(self._label, result, len(rows), "RUNNING"), result.task)
        self._add_candidates(study.info.run_id, [candidate_content(self._label, result, row) for row in rows])
        self._store.add_files(study.info.run_id, artifacts)
        self._store.write(self._store.run(study.info.run_id), study_content(self._label, result, len(rows), "FINISHED"))
        self._studies[result.task] = result
        self._store.write(self._store.run(self._parent), self._content("RUNNING"))

    def add_sharing(self, sharing: Sharing | None) -> None:
        """Write what the tasks share to the parent run."""
        self._sharing = sharing
        self._store.write(self._store.run(self._parent), self._content("RUNNING"))

    def _study_run(self, content: RunContent, task: str) -> Run:
        known = [run for run in self._store.children(self._parent) if run.data.tags.get(TASK_TAG) == task]
        study = known[0] if known else self._store.create(content, self._parent)
        self._study_ids[task] = study.info.run_id
        self._remember()
        self._store.write(study, content)
        return study

    def _add_candidates(self, study: str, contents: Sequence[RunContent]) -> None:
        wanted = {content.tags[POLICY_TAG]: content for content in contents}
        known: dict[str, Run] = {}
        for run in self._store.children(study):
            policy = run.data.tags.get(POLICY_TAG, "")
            if policy in wanted and policy not in known:
                known[policy] = run
            elif run.data.tags.get(KIND_TAG) == "candidate":
                # No longer among the shown ones, or the second attempt at a request that had arrived.
                self._store.delete(run)
        # MLflow lists the newest run first: the most important one is created last.
        for policy, content in reversed(wanted.items()):
            run = known[policy] if policy in known else self._store.create(content, study)
            self._store.write(run, content)

    def finish(self, status: str, artifacts: Sequence[Path]) -> None:
        """Copy the search's files to its parent run and close it."""
        self._store.add_files(self._parent, artifacts)
        self._store.write(self._store.run(self._parent), self._content(status))


def search_key(folder: Path) -> str:
    """Return the key that a search's folder was given when it was first tracked, or a new one."""
    try:
        return uuid.UUID(hex=json.loads((folder / MEMORY).read_text(encoding="utf-8"))["key"]).hex
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Never tracked, or edited by hand: a new key starts a new run.
        return uuid.uuid4().hex
