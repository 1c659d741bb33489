"""Stored answers scored by today's metrics, whatever the metrics were when they were stored. No model is run for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from vtw_search.evaluation.metrics import find_metric
from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.records import Measurement
from vtw_search.search.aggregate import accuracy_of


class Scoring:
    """How answers to the samples of a study are scored.

    Attributes:
        versions: of the metrics that the samples ask for.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = {sample.id: sample for sample in samples}
        self.versions = {name: find_metric(name).version for name in sorted({sample.metric for sample in samples})}

    def scored(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return sample records with the scores of their answers; those without an answer have none."""
        asked = list(zip(frame["sample"], frame["answer"], strict=True))
        known = {pair: self._samples[pair[0]].score(pair[1]) for pair in set(asked) if not pd.isna(pair[1])}
        return frame.assign(score=pd.Series([known.get(pair, math.nan) for pair in asked], frame.index, dtype=float))

    def changed(self, frame: pd.DataFrame) -> dict[str, dict[str, int]]:
        """Return what identifies the metrics, `metrics`, if they score stored records in another way; else nothing."""
        return {} if frame["score"].equals(self.scored(frame)["score"]) else {"metrics": self.versions}

    def scored_again(self, rows: Sequence[Measurement], records: Mapping[str, pd.DataFrame]) -> Iterator[Measurement]:
        """Yield the rows that other versions of the metrics scored, with today's accuracies; their profile stays.

        Args:
            rows: whole or stopped early, some of which may have failed.
            records: by policy digest, as `scored` returns them.
        """
        for row in rows:
            if row.failure is None and row.metrics != self.versions:
                numbers = accuracy_of(records[row.policy.digest()], records[Policy.keep_all().digest()])
                yield row.model_copy(update={**numbers, "metrics": self.versions})
