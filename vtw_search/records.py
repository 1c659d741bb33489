"""Sample records and measurements: the tables that own the truth, and the folder that stores them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from vtw_search.files import is_json, unreadable, write_atomically, write_text_atomically
from vtw_search.former_records import FormerStore, Identity, find_former
from vtw_search.lines import Lines
from vtw_search.policies import Policy
from vtw_search.versions import rules_of, still_hold, versions_of

# (position set, direction) of a KL divergence -> column of the sample records.
KL_COLUMNS = {
    ("answer", "reference_candidate"): "kl_answer_nats",
    ("answer", "candidate_reference"): "kl_answer_reverse_nats",
    ("first_token", "reference_candidate"): "kl_first_nats",
    ("first_token", "candidate_reference"): "kl_first_reverse_nats",
}

# Raised when columns, metrics or their meaning change; part of every identity, so that old records are left alone.
RECORDS_VERSION = 4
OUT_OF_MEMORY, TIMED_OUT = "out of memory", "timed out"
# How failures begin that another try may not meet.
TRANSIENT = (OUT_OF_MEMORY, TIMED_OUT)
# What identifies a sample record within a store.
KEY = ["policy", "split", "sample"]


@dataclass(frozen=True)
class SampleRecord:
    """One policy on one sample.

    Attributes:
        policy: digest of the policy.
        split, position, sample, cluster, slices: what was asked; position in the split, slices as JSON.
        answer_tokens: length of the reference's answer, end token included.
        kl_answer_nats: KL(reference || candidate), mean over the answer tokens, forced along the reference's answer.
        kl_answer_reverse_nats: the other direction; `*_sum_nats` are sums over the tokens instead of means.
        kl_first_nats, kl_first_reverse_nats: at the first answer token alone.
        agreement: the greedy answers are the same tokens.
        answer, score: the candidate's greedy answer, and its metric in [0, 1].
        failure: why there are no numbers, or None.
        visual_left: JSON list of how many visual tokens each stage left.
        versions: JSON object of the versions of the operators and scorers that the policy uses.
    """

    policy: str
    split: str
    position: int
    sample: str
    cluster: str
    slices: str
    answer_tokens: int
    kl_answer_nats: float | None
    kl_answer_reverse_nats: float | None
    kl_answer_sum_nats: float | None
    kl_answer_reverse_sum_nats: float | None
    kl_first_nats: float | None
    kl_first_reverse_nats: float | None
    agreement: bool | None
    answer: str | None
    score: float | None
    failure: str | None = None
    visual_left: str | None = None
    versions: str = "{}"


class Measurement(BaseModel):
    """One policy on one task: aggregates of its sample records, and its profile. A failed one has no numbers.

    Attributes:
        task, policy: what was measured.
        layer: K; the number of decoder layers for keep-all.
        failure: why there are no numbers, or None.
        stopped: why it was not measured on all samples (racing), or None. It is no answer, whatever its numbers say.
        calibration_samples, selection_samples: how many samples the means are over.
        kl_*: over calibration. `_low`, `_high`: 95 % bootstrap interval of the mean.
        accuracy*, agreement: over selection. `accuracy_drop` is reference minus candidate, paired by sample.
        *_macs: multiply-adds of one prefill with `prompt_tokens` tokens, `visual_tokens` of them visual; `macs` is all.
            Where scores decide how many tokens stay, macs are the mean over the samples, `macs_spread` the deviation.
        cache_bytes: of the keys and values that the same prefill leaves; `cache_ratio` is its share of keep-all's.
        latency_ms: median time of that prefill; `latency_ratio` is the median over pairs with the reference.
        latency_problems: why the times should not be relied upon, or why there are none although they were asked for.
        versions: of the operators and scorers that the policy uses.
        metrics: version of each metric that scored the answers; empty where metrics had none yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    policy: Policy
    layer: int
    failure: str | None = None
    stopped: str | None = None
    calibration_samples: int = 0
    selection_samples: int = 0
    kl_answer_nats: float | None = None
    kl_answer_nats_low: float | None = None
    kl_answer_nats_high: float | None = None
    kl_answer_nats_p95: float | None = None
    kl_answer_nats_max: float | None = None
    kl_answer_reverse_nats: float | None = None
    kl_first_nats: float | None = None
    kl_first_reverse_nats: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    accuracy_drop: float | None = None
    accuracy_drop_low: float | None = None
    accuracy_drop_high: float | None = None
    agreement: float | None = None
    prompt_tokens: int | None = None
    visual_tokens: int | None = None
    vision_macs: int | None = None
    projector_macs: int | None = None
    decoder_macs: int | None = None
    lm_head_macs: int | None = None
    scorer_macs: int | None = None
    macs: int | None = None
    macs_ratio: float | None = None
    macs_spread: float | None = None
    cache_bytes: int | None = None
    cache_ratio: float | None = None
    latency_ms: float | None = None
    reference_latency_ms: float | None = None
    latency_ratio: float | None = None
    latency_ratio_low: float | None = None
    latency_ratio_high: float | None = None
    latency_repeats: int | None = None
    latency_problems: str | None = None
    versions: dict[str, int] = Field(default_factory=lambda known: versions_of(known["policy"]))
    metrics: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        """Whether there are numbers over all samples."""
        return self.failure is None and self.stopped is None


class RecordStore:
    """The records of one identity: sample shards and measurements, only ever added to.

    A shard is written atomically under a name made of what it holds, so that a killed process leaves a complete shard
    or none, and the same work done twice gives one file. Measurements are lines; a torn last line is dropped when read.
    What was made by another version of an operator or scorer than today's is left alone.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], profile: str = "") -> None:
        self.folder, self.former = folder, tuple[FormerStore, ...]()
        self._measurements = _measurements_of(folder / f"measurements{profile}.jsonl")
        text, path = json.dumps(identity, indent=2, sort_keys=True) + "\n", folder / "identity.json"
        if not path.exists() or path.read_bytes() != text.encode():  # damaged: the folder's name is of this very text
            write_text_atomically(path, text)

    @classmethod
    def of_identity(
        cls, root: Path, identity: dict[str, Any], profile: dict[str, Any],
        former: Callable[[], Sequence[Identity]] = tuple,
    ) -> RecordStore:  # fmt: skip
        """Return the store of an identity, in a folder of `root` named by its hash.

        Args:
            root: where stores are.
            identity: what the records depend on, apart from the policy and what it uses.
            profile: settings of the profile, which measurements depend on and sample records do not.
            former: returns the forms that this identity had before.
        """
        content = {"records": RECORDS_VERSION, **identity}
        store = cls(root / digest_of(content), content, f"-{digest_of(profile)}")
        store.former = tuple(find_former(root, content, former))  # when its own identity is there, and whole
        return store

    def add_samples(self, records: Sequence[SampleRecord]) -> None:
        """Store records as one shard."""
        keys = sorted((record.policy, record.split, record.sample, record.versions) for record in records)
        name = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:24]
        frame = frame_of(records)
        write_atomically(self.folder / f"samples-{name}.parquet", lambda path: frame.to_parquet(path, index=False))

    def samples(self) -> pd.DataFrame:
        """Return all sample records, one row per (policy, split, sample), in a fixed order."""
        shards = [self._read(path) for path in sorted(self.folder.glob("samples-*.parquet"))]
        if not shards and not self.former:
            return frame_of([])
        own = pd.concat([frame_of([]), *shards], ignore_index=True)
        holds = {versions: still_hold(json.loads(versions)) for versions in own["versions"].unique()}
        rows = pd.concat([own[own["versions"].map(holds).astype(bool)], self._former_samples], ignore_index=True)
        # A success counts before a failure that was tried again.
        rows = rows.iloc[rows["failure"].notna().to_numpy(dtype=bool).argsort(kind="stable")]
        return rows.drop_duplicates(KEY).sort_values(KEY, ignore_index=True)

    @cached_property
    def _former_samples(self) -> pd.DataFrame:
        """Sample records of before that would come out the same now."""
        found = [frame_of([])]
        for each in self.former:
            rules = {Policy.keep_all().digest(): list[str]()}
            for lines in (*map(_measurements_of, each.folder.glob("measurements*.jsonl")), self._measurements):
                rules |= {row.policy.digest(): rules_of(row.policy) for row in lines.rows()}
            rows = pd.concat([frame_of([]), *map(self._read, sorted(each.folder.glob("samples-*.parquet")))])
            holds = {digest: each.holds(rules.get(digest)) for digest in rows["policy"].unique()}
            found.append(rows[rows["policy"].map(holds).astype(bool)])
        return pd.concat(found, ignore_index=True)

    def derived(self, stem: str, policy: Policy) -> Path:
        """Return the file of what follows from these records and a policy; it may be one of before, or not exist."""
        own = self.folder / f"{stem}-{digest_of(versions_of(policy))}.json"
        before = (each.folder / f"{stem}.json" for each in self.former if each.holds(rules_of(policy)))
        # A damaged one is made anew, which is not done in a folder of before.
        return next((path for path in before if is_json(path) and not own.exists()), own)

    def _read(self, path: Path) -> pd.DataFrame:
        try:
            rows = pd.read_parquet(path)
            return rows.assign(versions=rows.get("versions", "{}")).astype(_COLUMN_TYPES)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise unreadable(path, error, "delete it; its samples are scored again") from error

    def add_measurement(self, measurement: Measurement) -> None:
        """Append a measurement; it is on the disk when this returns."""
        self._measurements.append(measurement)

    def measurements(self, stopped: Mapping[str, str] | None = None) -> dict[str, Measurement]:
        """Return the measurements by policy digest.

        The first complete one counts, one with a time before one without: limits on time need it of policies that
        others need no time of. Without a time, one that says why before one that was not to be timed. Without a
        complete one, the last that failed or was stopped.

        Args:
            stopped: digest -> why, of policies that racing has stopped. Of these the last that was stopped for that
                very reason counts, whatever another search has measured of them.
        """
        stopped = stopped or {}
        found: dict[str, Measurement] = {}
        for measurement in self._all_measurements():
            digest = measurement.policy.digest()
            known, why = found.get(digest), stopped.get(digest)
            counts = known is None or not known.complete or _worth(measurement) > _worth(known)
            if counts if why is None else measurement.stopped == why or measurement.failure is not None:
                found[digest] = measurement
        return found

    def _all_measurements(self) -> Iterator[Measurement]:
        """Yield what would come out the same now, in the order of measuring."""
        for each in self.former:
            rows = _measurements_of(each.folder / self._measurements.path.name).rows()
            yield from (row for row in rows if each.holds(rules_of(row.policy)))
        yield from (row for row in self._measurements.rows() if still_hold(row.versions))


def _worth(measurement: Measurement) -> tuple[bool, bool, bool, int]:
    """Order measurements: whole ones, with a time, or else with the reason why there is none; by newer metrics."""
    timed, scored = measurement.latency_ms is not None, sum(measurement.metrics.values())
    return measurement.complete, timed, not timed and measurement.latency_problems is not None, scored


@dataclass(frozen=True)
class Measured:
    """What a search goes by.

    Attributes:
        measurements: by policy digest.
        samples: the sample records behind them, as `RecordStore.samples` returns them.
        source: for messages.
    """

    measurements: Mapping[str, Measurement]
    samples: pd.DataFrame
    source: str


_COLUMN_TYPES = {
    field.name: {"int": "int64", "float | None": "float64", "bool | None": "boolean"}.get(str(field.type), "string")
    for field in fields(SampleRecord)
}


def frame_of(records: Sequence[SampleRecord]) -> pd.DataFrame:
    """Return records as a table with the columns of the store."""
    return pd.DataFrame([asdict(record) for record in records], columns=list(_COLUMN_TYPES)).astype(_COLUMN_TYPES)


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the hash by which stores and the ledger name what `content` identifies."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _measurements_of(path: Path) -> Lines[Measurement]:
    return Lines(path, TypeAdapter(Measurement), "remove that line; its policy is profiled again")


def export_records(frame: pd.DataFrame, measurements: Iterable[Measurement], folder: Path) -> list[Path]:
    """Write a copy of records for people and for the tracker: `samples.parquet` and `measurements.jsonl`."""
    lines = "".join(measurement.model_dump_json() + "\n" for measurement in measurements)
    return [
        write_atomically(folder / "samples.parquet", lambda path: frame.to_parquet(path, index=False)),
        write_text_atomically(folder / "measurements.jsonl", lines),
    ]
