"""One task of a search: score all candidates, profile them, judge them, and measure the answer on the holdout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from vtw_search.engine import CandidateError, OnePassEvaluator, batches, out_of_memory_is_a_failure
from vtw_search.errors import ModelError
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.splits import Splits
from vtw_search.operators import OPERATORS
from vtw_search.policies import Policy
from vtw_search.records import OUT_OF_MEMORY, Measurement, RecordStore, SampleRecord
from vtw_search.scorers import SCORERS
from vtw_search.search.aggregate import holdout_numbers, measurement_of
from vtw_search.search.front import worth_timing
from vtw_search.search.profile import Profiler, profile_columns

SEARCH_SPLITS = ("calibration", "selection")
CONFIRMATION = ("confirmation",)
HOLDOUT = ("holdout",)
# Candidates of one pass. More would save no more: the reference is a small part of the work by then.
MOST_AT_ONCE = 128


class Progress(Protocol):
    """Where a study reports what it is doing."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a piece of work."""

    def advance(self, units: int = 1) -> None:
        """Report finished units."""


@dataclass(frozen=True)
class StudySettings:
    """What a study depends on besides its model and samples.

    Attributes:
        task: its name.
        max_new_tokens: bound on the length of an answer.
        batch_size: samples per batch; part of the identity, since it changes floating-point results.
        repeats: timed rounds A B B A; 0 for none.
        store: folder that holds the records of all searches.
        time_all: whether every candidate is timed, which limits and objectives on time need.
    """

    task: str
    max_new_tokens: int
    batch_size: int
    repeats: int
    store: Path
    time_all: bool = False


class Study:
    """Measures candidates on a task. Whatever is in the store is not measured again."""

    def __init__(self, loaded: LoadedModel, splits: Splits, settings: StudySettings, progress: Progress) -> None:
        self.loaded, self.splits, self.settings, self.progress = loaded, splits, settings, progress

    def identity(self, splits: Sequence[str]) -> dict[str, Any]:
        """Return all that the records of `splits` depend on. Limits, tracking and the like are no part of it."""
        return {
            **self.loaded.identity,
            "task": self.settings.task,
            "max_new_tokens": self.settings.max_new_tokens,
            "batch_size": self.settings.batch_size,
            "operators": {name: operator.scoring_version for name, operator in OPERATORS.items()},
            "scorers": {name: scorer.scoring_version for name, scorer in SCORERS.items()},
            "samples": {split: self.splits.digest(split) for split in splits},
        }

    def store(self, splits: Sequence[str]) -> RecordStore:
        """Return the store of `splits`."""
        profile = {"repeats": self.settings.repeats}
        return RecordStore.of_identity(self.settings.store, self.identity(splits), profile)

    def measure(self, candidates: Sequence[Policy]) -> RecordStore:
        """Bring the store up to date for `candidates` on calibration and selection."""
        store = self.store(SEARCH_SPLITS)
        for split in SEARCH_SPLITS:
            self._score(store, split, candidates)
        self._profile(store, candidates)
        return store

    def _score(self, store: RecordStore, split: str, candidates: Sequence[Policy]) -> None:
        frame = store.samples()
        # What ran out of memory is tried again: another process may have held it.
        frame = frame[frame["failure"].fillna("") != OUT_OF_MEMORY]
        done = set(zip(frame["policy"], frame["split"], frame["sample"], strict=True))
        failed = set(frame.loc[frame["failure"].notna(), "policy"])
        samples = self.splits[split]
        finished = sum((policy.digest(), split, sample.id) in done for policy in candidates for sample in samples)
        self.progress.start(f"{self.settings.task} {split}", len(candidates) * len(samples), finished)
        for start, batch in batches(samples, self.settings.batch_size):
            missing = [
                policy for policy in candidates
                if any((policy.digest(), split, sample.id) not in done for sample in batch)
            ]  # fmt: skip
            alive = [policy for policy in missing if policy.digest() not in failed]
            self.progress.advance((len(missing) - len(alive)) * len(batch))
            if not alive:
                continue
            evaluator = OnePassEvaluator(self.loaded, batch, split, start, self.settings.max_new_tokens)
            records = []
            for policies in _portions(alive):
                for policy, found in evaluator.records_of(policies).items():
                    if policy.is_keep_all:
                        _require_success(found)
                    failed |= {record.policy for record in found if record.failure is not None}
                    records += found
                    self.progress.advance(len(batch))
            store.add_samples(records)

    def _profile(self, store: RecordStore, candidates: Sequence[Policy]) -> None:
        known = store.measurements()
        frame = store.samples()
        broken = set(frame.loc[frame["failure"].notna(), "policy"])
        missing = [policy for policy in candidates if not _is_measured(policy, known, broken, self.settings.time_all)]
        if not missing:
            return
        self.progress.start(f"{self.settings.task} profile", len(missing))
        layers = self.loaded.facts.num_layers
        profiler = self.profiler
        reference_macs = profiler.macs(Policy.keep_all()).total
        rows = [measurement_of(frame, self.settings.task, policy, layers) for policy in missing]
        counts = {policy: _measured_counts(frame, policy) for policy in missing}
        counted = [
            row if row.failure else self._profiled(row, profiler, reference_macs, counts[row.policy], timed=False)
            for row in rows
        ]
        measured = [row for row in known.values() if row.policy in candidates and row.policy not in missing]
        wanted = worth_timing([*measured, *counted])
        for row in counted:
            timed = row.failure is None and (self.settings.time_all or row.policy.digest() in wanted)
            if timed:
                row = self._profiled(row, profiler, reference_macs, counts[row.policy], timed=True)
            store.add_measurement(row)
            self.progress.advance()

    @cached_property
    def profiler(self) -> Profiler:
        """The profiler on this task's selection samples."""
        return Profiler(self.loaded, self.splits["selection"], self.settings.repeats)

    def _profiled(
        self, row: Measurement, profiler: Profiler, reference_macs: int, counts: list[list[int]], *, timed: bool
    ) -> Measurement:
        try:
            with out_of_memory_is_a_failure():
                profile = profiler.profile(row.policy, counts, timed=timed)
                return row.model_copy(update=profile_columns(profile, reference_macs))
        except CandidateError as error:
            return Measurement(task=row.task, policy=row.policy, layer=row.layer, failure=f"{error} while timed")

    def is_known(self, split: str, policies: Sequence[Policy]) -> bool:
        """Whether a split was measured for these policies already, so that it need not be looked at."""
        frame = self.store((split,)).samples()
        known = set(zip(frame["policy"], frame["sample"], strict=True))
        return all(
            (each.digest(), sample.id) in known
            for each in (Policy.keep_all(), *policies)
            for sample in self.splits[split]
        )

    def measure_confirmation(self, policies: Sequence[Policy]) -> pd.DataFrame:
        """Measure policies, and keep-all beside them, on the confirmation split; returns its sample records."""
        store = self.store(CONFIRMATION)
        self._score(store, "confirmation", list(dict.fromkeys([Policy.keep_all(), *policies])))
        return store.samples()

    def measure_holdout(self, policy: Policy) -> dict[str, Any]:
        """Measure one policy, and keep-all beside it, on the holdout; returns its numbers."""
        store = self.store(HOLDOUT)
        self._score(store, "holdout", list(dict.fromkeys([Policy.keep_all(), policy])))
        return holdout_numbers(store.samples(), policy)


def _measured_counts(frame: pd.DataFrame, policy: Policy) -> list[list[int]]:
    """Return, per selection sample with an image, how many visual tokens each stage left."""
    own = frame[(frame["policy"] == policy.digest()) & (frame["split"] == "selection") & frame["failure"].isna()]
    return [json.loads(text) for text in own["visual_left"]]


def _portions(policies: Sequence[Policy]) -> Iterator[Sequence[Policy]]:
    """Yield the candidates of one pass at a time, so that progress can be seen; keep-all is in the first."""
    for start in range(0, len(policies), MOST_AT_ONCE):
        yield policies[start : start + MOST_AT_ONCE]


def _require_success(records: Sequence[SampleRecord]) -> None:
    """Without keep-all's numbers no other number means anything."""
    failure = next((record.failure for record in records if record.failure is not None), None)
    if failure is not None:
        remedy = "use a smaller batch_size or another model.dtype"
        raise ModelError("keep-all must be measurable", value=failure, remedy=remedy)


def _is_measured(policy: Policy, known: Mapping[str, Measurement], broken: set[str], timed: bool) -> bool:
    """Whether a measurement stands, with its time if that is needed; a failed one does if its records failed too."""
    measurement = known.get(policy.digest())
    if measurement is None or measurement.failure is not None:
        return measurement is not None and policy.digest() in broken
    return measurement.latency_ms is not None or not timed
