"""One task of a search: score all candidates, profile them, judge them, and measure the answer on the holdout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import pandas as pd

from vtw_search.engine import CandidateError, OnePassEvaluator, batches, out_of_memory_is_a_failure
from vtw_search.errors import ModelError
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.splits import Splits
from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.records import TRANSIENT, Measured, Measurement, RecordStore, SampleRecord, digest_of
from vtw_search.search.aggregate import measurement_of
from vtw_search.search.front import worth_timing
from vtw_search.search.profile import Profiler, profile_columns, profile_identity
from vtw_search.search.racing import Course, Racing, brought_back
from vtw_search.search.scoring import Scoring
from vtw_search.search.slices import Slices, with_slices
from vtw_search.search.study_settings import CONFIRMATION, HOLDOUT, SEARCH_SPLITS, Progress, StudySettings
from vtw_search.search.team import Team
from vtw_search.versions import rules_of, versions_of

# Candidates of one pass. More would save no more: the reference is a small part of the work by then.
MOST_AT_ONCE = 128


class Study:
    """Measures candidates on a task. Whatever is in the store is not measured again."""

    def __init__(self, loaded: LoadedModel, splits: Splits, settings: StudySettings, progress: Progress) -> None:
        self.loaded, self.splits, self.settings, self.progress = loaded, splits, settings, progress
        self._stores: dict[str, RecordStore] = {}
        self.slices, self.scoring = Slices(splits.every, settings.pooled), Scoring(splits.every)

    def identity(self, splits: Sequence[str]) -> dict[str, Any]:
        """Return all that the records of `splits` depend on, apart from the policy and the rules that it uses.

        Limits, tracking, and what else is registered are no part of it.
        """
        return {
            **self.loaded.identity,
            "task": self.settings.task,
            "max_new_tokens": self.settings.max_new_tokens,
            "batch_size": self.settings.batch_size,
            "samples": {split: self.splits.digest(split) for split in splits},
        }

    def scored_identity(self, splits: Sequence[str]) -> dict[str, Any]:
        """Return the identity of what follows from scores; it has the metrics' versions if they changed scores."""
        return {**self.identity(splits), **self.scoring.changed(self.store(splits).samples())}

    def names_of_records(self, splits: Sequence[str], policies: Sequence[Policy]) -> list[str]:
        """Return the names under which the ledger may know the records of `policies` on `splits`, today's first."""
        identity = self.scored_identity(splits)
        today = digest_of({**identity, "versions": versions_of(*policies)})
        if "metrics" in identity:
            return [today]
        rules = sorted({name for policy in policies for name in rules_of(policy)})
        return [today, *(digest_of(each.identity) for each in self.store(splits).former if each.holds(rules))]

    def store(self, splits: Sequence[str]) -> RecordStore:
        """Return the store of `splits`; to look for records of before once is enough."""
        profile = profile_identity(self.settings.repeats, self.loaded.device)
        identity = self.identity(splits)
        key = digest_of({**identity, "profile": profile})
        if key not in self._stores:
            root, former = self.settings.store, self.loaded.former_identities
            self._stores[key] = RecordStore.of_identity(root, identity, profile, former)
        return self._stores[key]

    def samples(self, splits: Sequence[str]) -> pd.DataFrame:
        """Return the sample records of `splits`, with all slices of their samples."""
        frame = self._records(self.store(splits))
        return with_slices(frame, self.slices.texts(frame))

    def _records(self, store: RecordStore) -> pd.DataFrame:
        return self.scoring.scored(store.samples())

    def sliced(self, splits: Sequence[str], wanted: str) -> list[Sample]:
        """Return the samples of one of `splits`, which are stored together, with what was measured of their slices."""
        return self.slices.sliced(self.splits[wanted], self._records(self.store(splits)))

    def measure_slices(self, splits: Sequence[str]) -> None:
        """Measure on `splits` what slices depend on, if a limit is on such a slice; EvidenceError if that fails."""
        if not self.slices.needed:
            return  # before the store is read, which takes long
        store, samples = self.store(splits), [sample for split in splits for sample in self.splits[split]]
        if self.slices.are_known(samples, self._records(store)):
            return
        for split in splits:
            self._score(store, split, self.slices.needed)
        self.slices.check(store.samples())

    def measure(self, candidates: Sequence[Policy], racing: Racing | None = None) -> Measured:
        """Bring the store up to date for `candidates`, keep-all among them, and return what it says of them.

        They are scored on calibration and selection. With `racing`, what surely breaks a limit is not scored any
        further; its measurement says so. The first batch of either split is scored always, so that every measurement
        has all of its numbers.
        """
        self.measure_slices(SEARCH_SPLITS)
        store, course = self.store(SEARCH_SPLITS), Course(racing)
        self._name_brought_back(store, candidates, racing)
        for split in SEARCH_SPLITS:
            self._score(store, split, candidates, course)
        early = course.stopped_early(self.search_samples)
        frame = self.samples(SEARCH_SPLITS) if racing is None else course.frame
        self._profile(store, candidates, frame, early)
        return Measured(store.measurements(early), frame, str(store.folder))

    def score_together(self, candidates: Sequence[Policy], team: Team) -> None:
        """Bring the sample records of `candidates` up to date, with other workers; each takes batches of samples.

        Nothing is raced: what a race stops depends on the batches before, which other workers are at.
        """
        store = self.store(SEARCH_SPLITS)
        for split in SEARCH_SPLITS:
            starts = range(0, len(self.splits[split]), self.settings.batch_size)
            for start in team.each(starts, partial("{} {} {}".format, store.folder.name, split)):
                self._score(store, split, candidates, only=start)

    def _name_brought_back(self, store: RecordStore, candidates: Sequence[Policy], racing: Racing | None) -> None:
        stopped = {digest for digest, row in store.measurements().items() if row.stopped is not None}
        before = [policy for policy in candidates if policy.digest() in stopped]
        if not before:
            return
        frame, own = self.samples(SEARCH_SPLITS), [policy.digest() for policy in (Policy.keep_all(), *before)]
        out = {} if racing is None else racing.stopped(frame[frame["policy"].isin(own)])
        again = [policy for policy in before if policy.digest() not in out]
        if again:
            self.progress.note(brought_back([policy.label() for policy in again]))

    def _score(
        self, store: RecordStore, split: str, candidates: Sequence[Policy], course: Course | None = None,
        only: int | None = None,
    ) -> None:  # fmt: skip
        """Score what is missing on a split, or on the batch that begins at `only`."""
        frame = self._records(store)
        texts = self.slices.texts(frame)
        if only is None:
            # What ran out of memory or time is tried again: another process may have held it. Workers leave that to the
            # one that finishes, when it is alone.
            frame = frame[~frame["failure"].fillna("").str.startswith(TRANSIENT)]
        done = set(zip(frame["policy"], frame["split"], frame["sample"], strict=True))
        failed = set(frame.loc[frame["failure"].notna(), "policy"])
        samples, course = self.splits[split], course or Course(None)
        finished = sum((policy.digest(), split, sample.id) in done for policy in candidates for sample in samples)
        what = f"{self.settings.task} {split}, {len(candidates)} policies"
        self.progress.start(what, len(candidates) * len(samples), finished)
        for start, batch in batches(samples, self.settings.batch_size):
            if only not in (None, start):
                continue
            let_in = course.going_on(candidates) if start else candidates
            missing = {
                policy.digest() for policy in candidates
                if any((policy.digest(), split, sample.id) not in done for sample in batch)
            }  # fmt: skip
            alive = [policy for policy in let_in if policy.digest() in missing - failed]
            self.progress.advance((len(missing) - len(alive)) * len(batch))
            records = self._scored(alive, split, start, batch)
            failed |= {record.policy for record in records if record.failure is not None}
            if records:
                store.add_samples(records)
            new = [replace(record, slices=texts[record.sample]) for record in records]
            course.tell(with_slices(frame[_of_batch(frame, split, batch)], texts), new, let_in)

    def _scored(
        self, policies: Sequence[Policy], split: str, start: int, batch: Sequence[Sample]
    ) -> list[SampleRecord]:
        """Score policies on one batch."""
        if not policies:
            return []
        asked, records = self.settings, list[SampleRecord]()
        evaluator = OnePassEvaluator(self.loaded, batch, split, start, asked.max_new_tokens, asked.timeout_s)
        for portion in _portions(policies):
            for policy, found in evaluator.records_of(portion).items():
                if policy.is_keep_all:
                    _require_success(found)
                records += found
                self.progress.advance(len(batch))
        return records

    def _profile(
        self, store: RecordStore, candidates: Sequence[Policy], frame: pd.DataFrame, early: Mapping[str, str]
    ) -> None:
        groups = {str(digest): group for digest, group in frame.groupby("policy")}
        known = store.measurements(early)
        standing = _standing(known, frame, early, self.settings.time_all)
        stood = [known[policy.digest()] for policy in candidates if policy.digest() in standing]
        for row in self.scoring.scored_again(stood, groups):
            known[row.policy.digest()] = row
            store.add_measurement(row)
        missing = [policy for policy in candidates if policy.digest() not in standing]
        if not missing:
            return
        self.progress.start(f"{self.settings.task} profile, policies", len(missing))
        reference_macs = self.profiler.macs(Policy.keep_all()).total
        counts = {policy: _measured_counts(groups[policy.digest()]) for policy in missing}
        rows = [self._row(policy, groups, early.get(policy.digest())) for policy in missing]
        counted = [
            row if row.failure else self._profiled(row, reference_macs, counts[row.policy], timed=False) for row in rows
        ]
        wanted = worth_timing([*(known[policy.digest()] for policy in candidates if policy not in counts), *counted])
        for row in counted:
            if row.complete and (self.settings.time_all or row.policy.digest() in wanted):
                row = self._profiled(row, reference_macs, counts[row.policy], timed=True)
            if row != known.get(row.policy.digest()):  # times that could not be taken are asked for once more
                store.add_measurement(row)
            self.progress.advance()

    def _row(self, policy: Policy, groups: Mapping[str, pd.DataFrame], stopped: str | None) -> Measurement:
        names = dict.fromkeys((Policy.keep_all().digest(), policy.digest()))
        frame = pd.concat([groups[name] for name in names])
        row = measurement_of(frame, self.settings.task, policy, self.loaded.facts.num_layers)
        return row if row.failure else row.model_copy(update={"stopped": stopped, "metrics": self.scoring.versions})

    @property
    def search_samples(self) -> int:
        """How many samples a candidate is scored on unless it is stopped."""
        return sum(len(self.splits[split]) for split in SEARCH_SPLITS)

    @cached_property
    def profiler(self) -> Profiler:
        """The profiler on this task's selection samples."""
        return Profiler(self.loaded, self.splits["selection"], self.settings.repeats, self.settings.max_seconds)

    def _profiled(self, row: Measurement, reference_macs: int, counts: list[list[int]], *, timed: bool) -> Measurement:
        try:
            with out_of_memory_is_a_failure():
                profile = self.profiler.profile(row.policy, counts, timed=timed)
                return row.model_copy(update=profile_columns(profile, reference_macs))
        except CandidateError as error:
            return Measurement(task=row.task, policy=row.policy, layer=row.layer, failure=f"{error} while timed")

    def timed(self, row: Measurement) -> Measurement:
        """Return a complete measurement with its time, taken now if nobody wanted it before."""
        if not self.settings.repeats or row.latency_ms is not None or row.latency_problems is not None:
            return row
        frame = self.samples(SEARCH_SPLITS)
        counts = _measured_counts(frame[frame["policy"] == row.policy.digest()])
        found = self._profiled(row, self.profiler.macs(Policy.keep_all()).total, counts, timed=True)
        if found.failure is not None:
            return row.model_copy(update={"latency_problems": f"not timed: {found.failure}"})
        self.store(SEARCH_SPLITS).add_measurement(found)
        return found

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
        return self._measure_apart(CONFIRMATION, policies)

    def measure_holdout(self, policy: Policy) -> pd.DataFrame:
        """Measure one policy, and keep-all beside it, on the holdout; returns its sample records."""
        return self._measure_apart(HOLDOUT, [policy])

    def _measure_apart(self, splits: Sequence[str], policies: Sequence[Policy]) -> pd.DataFrame:
        self.measure_slices(splits)
        for split in splits:
            self._score(self.store(splits), split, list(dict.fromkeys([Policy.keep_all(), *policies])))
        return self.samples(splits)


def _measured_counts(records: pd.DataFrame) -> list[list[int]]:
    """Return, per selection sample of a policy, how many visual tokens each stage left."""
    own = records[(records["split"] == "selection") & records["failure"].isna()]
    return [json.loads(text) for text in own["visual_left"]]


def _of_batch(frame: pd.DataFrame, split: str, batch: Sequence[Sample]) -> pd.Series:
    """Return which records are of a batch."""
    return (frame["split"] == split) & frame["sample"].isin([sample.id for sample in batch])


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


def _standing(known: Mapping[str, Measurement], frame: pd.DataFrame, early: Mapping[str, str], timed: bool) -> set[str]:
    """Return the digests whose measurement stands, with its time if that is needed.

    A failed one does as long as its records failed too, and one that was stopped early as long as it is stopped for the
    same reason and has no more records.
    """
    broken, counts = set(frame.loc[frame["failure"].notna(), "policy"]), frame["policy"].value_counts()

    def stands(digest: str, row: Measurement) -> bool:
        if row.stopped is not None:
            samples = row.calibration_samples + row.selection_samples
            return row.stopped == early.get(digest) and samples == counts[digest]
        if row.failure is not None:
            return digest in broken
        return row.latency_ms is not None or not timed

    return {digest for digest, row in known.items() if stands(digest, row)}
