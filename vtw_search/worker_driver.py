"""`run_worker`: one of several processes that share the work of a search. The last one to find work finishes it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter
from rich.console import Console

from vtw_search.driver import SearchResult, finish_search
from vtw_search.errors import PolicyFileError, StoreError
from vtw_search.exploration import check_by_measuring, judged, racing_of, sampler_settings
from vtw_search.files import read_json, write_text_atomically
from vtw_search.policies import Policy, load_policy
from vtw_search.preparation import Prepared, limits_of, owned, prepare, search_folder
from vtw_search.progress import WorkProgress
from vtw_search.search.board import Board
from vtw_search.search.leases import LeaseHolder
from vtw_search.search.limits import Limits
from vtw_search.search.sampling import SamplerSettings
from vtw_search.search.space import candidates_of
from vtw_search.search.study import Study
from vtw_search.search.study_settings import SEARCH_SPLITS
from vtw_search.search.team import Team
from vtw_search.search.together import explore_together
from vtw_search.settings import SearchConfig
from vtw_search.versions import registered_versions, versions_of


def run_worker(config: SearchConfig, console: Console | None = None) -> SearchResult | None:
    """Do a share of a search, and finish it if no other worker does.

    Samples are shared where the space is enumerated, candidates where it is sampled. When all is scored, one worker
    takes the times, chooses, tests and reports; the others wait for it, since it may die, and end.

    Args:
        config: with `worker`.
        console: where progress and tables go; stdout by default.

    Returns:
        The result, or None where another worker finished the search.

    Raises:
        VtwError: as `run_search`; also when the storage does not answer.
    """
    console = console or Console()
    with owned(config, console) as owner:
        return _work(prepare(config, console, owner))


def _work(prepared: Prepared) -> SearchResult | None:
    config = prepared.config
    name, seconds = f"worker {config.worker}", config.storage.lease_s
    with LeaseHolder(prepared.storage.leases(), _owner(name), seconds) as leases:
        team = Team(leases, pause_s=min(1.0, seconds / 10))
        with WorkProgress(prepared.console, prefix=f"{name}, ") as progress:
            studies = {task: prepared.study(task, progress) for task in prepared.splits}
            for task, study in studies.items():
                with team.turn(f"check {task}"):
                    check_by_measuring(config, study)
            explored = {task: _share(prepared, study, team) for task, study in studies.items()}
        with team.turn("finish"):
            return _finish(prepared, studies, explored)


def _owner(name: str) -> str:
    return f"{name}, {socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"


def _share(prepared: Prepared, study: Study, team: Team) -> list[Policy]:
    """Do this worker's share of one task; returns the candidates, all of which are measured."""
    config, limits = prepared.config, limits_of(prepared.config, study.settings.task)
    settings = sampler_settings(config, prepared.space, config.worker or 0)
    if settings is None:
        candidates = candidates_of(prepared.space)
        study.score_together(candidates, team)
        return candidates
    return prepared.storage.patience.call(partial(_explore, prepared, study, settings, limits, team))


def _explore(prepared: Prepared, study: Study, settings: SamplerSettings, limits: Limits, team: Team) -> list[Policy]:
    """Choose and score candidates with the others, guided by all limits but those on time.

    Times are left to the worker that finishes: one that the others compute beside would say nothing.
    """
    study, limits = _untimed(study), limits.without_time()
    seeds, racing = prepared.space.seeds(settings.trials), racing_of(prepared, study, limits)
    study.score_together([Policy.keep_all(), *seeds], team)
    identity, rules = study.scored_identity(SEARCH_SPLITS), registered_versions()
    decisive = [identity, rules, limits.as_dict(), settings.name, dict(prepared.space.values)]
    name = f"{prepared.config.search_name}: exploring {study.settings.task} {_digest(decisive)}"
    with team.turn("choose"):
        board = Board(name, prepared.storage.studies, prepared.space, team)
    return explore_together(prepared.space, settings, seeds, partial(judged, study, limits, racing), board, team)


def _untimed(study: Study) -> Study:
    settings = replace(study.settings, repeats=0, time_all=False)
    return Study(study.loaded, study.splits, settings, study.progress)


def _finish(prepared: Prepared, studies: dict[str, Study], explored: dict[str, list[Policy]]) -> SearchResult | None:
    """Finish the search, unless another worker did."""
    config, path = prepared.config, search_folder(prepared.config) / "finished.json"
    parts = [config.digest, *(study.scored_identity(SEARCH_SPLITS) for study in studies.values())]
    explored_rules = versions_of(*(policy for task in explored for policy in explored[task]))
    found = _digest([*parts, explored_rules, {task: [each.digest() for each in explored[task]] for task in explored}])
    finished, policy_file = _stored(path, prepared), search_folder(config) / "policy.json"
    if finished is not None and finished.search == found and _is_whole(policy_file, prepared):
        prepared.say(f"worker {config.worker}: nothing is left to do, {finished.by} finished it: {policy_file}")
        return None
    prepared.say(f"worker {config.worker}: everything is measured, finishes the search")
    result = finish_search(prepared, explored)
    content = _Finished(search=found, by=f"worker {config.worker}")
    write_text_atomically(path, content.model_dump_json(indent=2) + "\n")
    return result


class _Finished(BaseModel):
    """That a search is finished, with which candidates, by whom and when."""

    search: str
    by: str
    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def _is_whole(policy_file: Path, prepared: Prepared) -> bool:
    try:
        load_policy(policy_file)
    except PolicyFileError as error:
        prepared.say(str(error))
        return False
    return True


def _stored(path: Path, prepared: Prepared) -> _Finished | None:
    try:
        return read_json(path, TypeAdapter(_Finished), "the search is finished once more") if path.exists() else None
    except StoreError as error:
        prepared.say(str(error))
        return None


def _digest(content: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
