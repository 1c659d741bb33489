"""Stored answers scored by today's metrics, whatever the metrics were when they were stored. No model is run for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from vtw_search.evaluation.metrics import find_metric
from vtw_search.evaluation.tasks import Sample


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
