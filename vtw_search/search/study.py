"""One task of a search: score all candidates, profile them, judge them, and measure the answer on the holdout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from vtw_search.engine import BatchEvaluator, batches
from vtw_search.errors import ModelError
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.splits import Splits
from vtw_search.operators import OPERATORS
from vtw_search.policies import Policy
from vtw_search.records import Measurement, RecordStore
from vtw_search.search.aggregate import holdout_numbers, measurement_of
from vtw_search.search.profile import Profiler, profile_columns

SEARCH_SPLITS = ("calibration", "selection")


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
        repeats, warmup: of the timing.
        store: folder that holds the records of all searches.
    """

    task: str
    max_new_tokens: int
    batch_size: int
    repeats: int
    warmup: int
    store: Path


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
            "samples": {split: self.splits.digest(split) for split in splits},
        }

    def store(self, splits: Sequence[str]) -> RecordStore:
        """Return the store of `splits`."""
        return RecordStore.of_identity(self.settings.store, self.identity(splits))

    def measure(self, candidates: Sequence[Policy]) -> RecordStore:
        """Bring the store up to date for `candidates` on calibration and selection."""
        store = self.store(SEARCH_SPLITS)
        for split in SEARCH_SPLITS:
            self._score(store, split, candidates)
        self._require_reference(store)
        self._profile(store, candidates)
        return store

    def _require_reference(self, store: RecordStore) -> None:
        """Without keep-all's numbers no other number means anything."""
        frame = store.samples()
        failures = frame.loc[(frame["policy"] == Policy.keep_all().digest()) & frame["failure"].notna(), "failure"]
        if len(failures):
            remedy = "use a smaller batch_size or another model.dtype"
            raise ModelError("keep-all must be measurable", value=failures.iloc[0], remedy=remedy)

    def _score(self, store: RecordStore, split: str, candidates: Sequence[Policy]) -> None:
        frame = store.samples()
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
            evaluator = BatchEvaluator(self.loaded, batch, split, start, self.settings.max_new_tokens)
            records = []
            for policy in alive:
                found = evaluator.records(policy)
                failed |= {record.policy for record in found if record.failure is not None}
                records += found
                self.progress.advance(len(batch))
            store.add_samples(records)

    def _profile(self, store: RecordStore, candidates: Sequence[Policy]) -> None:
        known = store.measurements()
        missing = [policy for policy in candidates if policy.digest() not in known]
        if not missing:
            return
        self.progress.start(f"{self.settings.task} profile", len(missing))
        frame, layers = store.samples(), self.loaded.facts.num_layers
        profiler = Profiler(self.loaded, self.splits["selection"], self.settings.repeats, self.settings.warmup)
        reference_macs = profiler.macs(Policy.keep_all()).total
        for policy in missing:
            row = measurement_of(frame, self.settings.task, policy, layers)
            if row.failure is None:
                row = self._profiled(row, profiler, reference_macs)
            store.add_measurement(row)
            self.progress.advance()

    def _profiled(self, row: Measurement, profiler: Profiler, reference_macs: int) -> Measurement:
        try:
            return row.model_copy(update=profile_columns(profiler.profile(row.policy), reference_macs))
        except torch.OutOfMemoryError:
            failure = "out of memory while profiling"
            return Measurement(task=row.task, policy=row.policy, layer=row.layer, failure=failure)

    def measure_holdout(self, policy: Policy) -> tuple[dict[str, Any], bool]:
        """Measure one policy on the holdout; returns its numbers, and whether the holdout was looked at for them."""
        store = self.store(("holdout",))
        before = len(store.samples())
        self._score(store, "holdout", [Policy.keep_all(), policy] if not policy.is_keep_all else [policy])
        frame = store.samples()
        return holdout_numbers(frame, policy), len(frame) > before
