"""Limits, and what they say of measurements. Pure functions of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from vtw_search.evaluation.statistics import bootstrap_interval
from vtw_search.records import KL_COLUMNS, Measurement
from vtw_search.results import Judgement


@dataclass(frozen=True)
class Limits:
    """Bounds on the loss of quality; a bound of None is not asked for.

    Attributes:
        kl_nats: bound on the mean KL divergence over the calibration samples.
        kl_position: `answer` (mean over the answer's tokens) or `first_token`.
        kl_direction: `reference_candidate`, KL(reference || candidate), or `candidate_reference`.
        kl_samples: judge the KL on the first so many calibration samples only; None takes all.
        accuracy_drop: bound on the mean paired loss of accuracy over the selection samples.
        first_layer: policies that act below this layer are not considered.
    """

    kl_nats: float | None
    kl_position: str
    kl_direction: str
    kl_samples: int | None
    accuracy_drop: float | None
    first_layer: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the limits for files."""
        return asdict(self)

    def judge(self, measurement: Measurement, samples: pd.DataFrame) -> tuple[Judgement, ...]:
        """Judge one measurement.

        Args:
            measurement: of one policy.
            samples: the sample records of that policy.
        """
        if measurement.failure is not None:
            return ()
        judgements = (self._judge_layer(measurement), self._judge_kl(samples), self._judge_accuracy(measurement))
        return tuple(judgement for judgement in judgements if judgement is not None)

    def _judge_layer(self, measurement: Measurement) -> Judgement | None:
        if self.first_layer is None:
            return None
        missing = float(self.first_layer - measurement.layer)
        text = f"layer {measurement.layer} < {self.first_layer}"
        return Judgement("first_layer", 0.0, missing, missing, missing, text)

    def _judge_kl(self, samples: pd.DataFrame) -> Judgement | None:
        if self.kl_nats is None:
            return None
        calibration = samples[samples["split"] == "calibration"].sort_values("position")
        used = calibration if self.kl_samples is None else calibration.head(self.kl_samples)
        values = used[KL_COLUMNS[self.kl_position, self.kl_direction]].to_numpy(dtype=float)
        low, high = bootstrap_interval(values, used["cluster"])
        mean = float(values.mean())
        text = f"kl_nats {mean:.3g} > {self.kl_nats:g}"
        return Judgement("kl_nats", self.kl_nats, mean, low, high, text)

    def _judge_accuracy(self, measurement: Measurement) -> Judgement | None:
        if self.accuracy_drop is None:
            return None
        drop, low, high = (
            float(value)  # type: ignore[arg-type]
            for value in (measurement.accuracy_drop, measurement.accuracy_drop_low, measurement.accuracy_drop_high)
        )
        text = f"accuracy_drop {drop:.3g} > {self.accuracy_drop:g}"
        return Judgement("accuracy_drop", self.accuracy_drop, drop, low, high, text)


def limits_for_task(asked: Mapping[str, Any], defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> Limits:
    """Combine limits: a task's own override, else what was asked for all tasks, else the task's default.

    The text `task` in `asked` stands for "the task's default".
    """
    names: Iterable[str] = Limits.__dataclass_fields__
    values: dict[str, Any] = {}
    for name in names:
        value = overrides.get(name, asked.get(name))
        values[name] = defaults.get(name) if value == "task" else value
    return Limits(**values)
