"""The numbers that tables, figures and pages show of a row, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vtw_search.report import kinds
from vtw_search.results import Judgement, Row, StudyResult

_DIRECTIONS = {
    "reference_candidate": "KL(reference || candidate)",
    "candidate_reference": "KL(candidate || reference)",
}
_POSITIONS = {"answer": "mean over answer tokens", "first_token": "first answer token"}
# What a limit bounds, by the start of its name -> the table column that shows it.
_COLUMNS = {"kl": "KL", "accuracy": "drop", "macs": "macs", "latency": "time", "first_layer": "K"}
# Labels of policies in one line; more are counted.
_MOST_LABELS = 3


class Quantity(NamedTuple):
    """A point estimate with its 95 % interval; what is unknown, infinite or not a number is None."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval, or None if one of its ends is unknown."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def finite(value: float | None) -> float | None:
    """Return the value, or None for infinities and NaN: neither can be drawn or compared."""
    return value if value is not None and math.isfinite(value) else None


def _quantity(value: float | None, low: float | None, high: float | None) -> Quantity:
    return Quantity(finite(value), finite(low), finite(high))


def kl(row: Row) -> Quantity:
    """Return the divergence that a limit bounds, in nats; without such a limit, the one over the answer."""
    judged = judgement(row, "kl")
    if judged is not None:
        return _quantity(judged.value, judged.low, judged.high)
    numbers = row.measurement
    return _quantity(numbers.kl_answer_nats, numbers.kl_answer_nats_low, numbers.kl_answer_nats_high)


def accuracy(row: Row) -> Quantity:
    """Return the accuracy over the selection samples, in [0, 1]."""
    numbers = row.measurement
    return _quantity(numbers.accuracy, numbers.accuracy_low, numbers.accuracy_high)


def accuracy_drop(row: Row) -> Quantity:
    """Return reference minus candidate accuracy, paired by sample."""
    numbers = row.measurement
    return _quantity(numbers.accuracy_drop, numbers.accuracy_drop_low, numbers.accuracy_drop_high)


def macs_percent(row: Row) -> float | None:
    """Return the multiply-adds of one prefill in percent of those of keep-all."""
    ratio = finite(row.measurement.macs_ratio)
    return None if ratio is None else 100 * ratio


def judgement(row: Row, prefix: str) -> Judgement | None:
    """Return the first judgement whose limit starts with `prefix`, on all samples: slices are named in [...]."""
    named = (found for found in row.judgements if found.limit.startswith(prefix) and "[" not in found.limit)
    return next(named, None)


def bound(result: StudyResult, prefix: str) -> float | None:
    """Return the bound of the first limit whose name starts with `prefix`, or None if none was asked for."""
    found = (judgement(row, prefix) for row in result.rows)
    return next((judged.bound for judged in found if judged is not None), None)


def broken_columns(row: Row) -> list[str]:
    """Return the table columns whose limits the row breaks; a limit without a column is named itself.

    A time that is needed and could not be taken counts as broken.
    """
    broken = [judged.limit for judged in row.judgements if not judged.holds]
    named = [next((title for start, title in _COLUMNS.items() if limit.startswith(start)), limit) for limit in broken]
    return list(dict.fromkeys([*named, *([] if row.untimed is None else [_COLUMNS["latency"]])]))


def layer_name(row: Row) -> str:
    """Return K, or `all` for the policy that keeps every token."""
    return "all" if row.measurement.policy.is_keep_all else str(row.measurement.layer)


def keep_all(result: StudyResult) -> Row | None:
    """Return the row of the policy that keeps every token, or None if it was not measured."""
    return next((row for row in result.rows if row.measurement.policy.is_keep_all), None)


def kl_name(results: Sequence[StudyResult]) -> str:
    """Return which divergence `kl` gives, or just `KL divergence` where the studies differ."""
    names = {_kl_name(result) for result in results}
    return names.pop() if len(names) == 1 else "KL divergence"


def _kl_name(result: StudyResult) -> str:
    asked = result.limits if bound(result, "kl") is not None else {}
    direction = str(asked.get("kl_direction", "reference_candidate"))
    position = str(asked.get("kl_position", "answer"))
    return f"{_DIRECTIONS.get(direction, direction)}, {_POSITIONS.get(position, position)}"


def samples_text(result: StudyResult) -> str:
    """Return how many samples the means are over."""
    kl_samples = max((row.measurement.calibration_samples for row in result.rows), default=0)
    accuracy_samples = max((row.measurement.selection_samples for row in result.rows), default=0)
    raced = sum(row.measurement.stopped is not None for row in result.rows)
    fewer = f"; {raced} raced out, on fewer" if raced else ""
    return f"KL over {kl_samples} calibration samples, accuracy over {accuracy_samples} selection samples{fewer}"


def settings_text(settings: Sequence[tuple[str, Any]]) -> str:
    """Return settings as `name=value, ...`, without those that are None."""
    return ", ".join(f"{name}={value}" for name, value in settings if value is not None) or "none"


def failures(result: StudyResult) -> dict[str, str]:
    """Return the rows without numbers, as `named` has them, by why there are none."""
    return _by_reason(result, lambda row: row.measurement.failure)


def without_times(result: StudyResult) -> dict[str, str]:
    """Return the rows whose times were asked for and could not be taken, by why there are none."""
    return _by_reason(
        result, lambda row: None if row.measurement.latency_ms is not None else row.measurement.latency_problems
    )


def _by_reason(result: StudyResult, reason_of: Callable[[Row], str | None]) -> dict[str, str]:
    rows: dict[str, list[Row]] = {}
    for row in result.rows:
        if (reason := reason_of(row)) is not None:
            rows.setdefault(one_line(reason), []).append(row)
    return {reason: named(result, own) for reason, own in rows.items()}


def named(result: StudyResult, rows: Sequence[Row]) -> str:
    """Return some of a study's rows as `K = 3, 4`; where layers do not tell policies apart, by label or as a number."""
    if kinds.by_layer(result):
        return f"K = {', '.join(map(layer_name, rows))}"
    labels = [row.measurement.policy.label() for row in rows]
    return ", ".join(labels) if len(labels) <= _MOST_LABELS else f"{len(labels)} policies"


def one_line(text: str, limit: int = 160) -> str:
    """Return the text with single spaces, cut to `limit` characters."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[: limit - 3] + "..."


def fixed(value: float | None, decimals: int = 3) -> str:
    """Write a number with that many decimals, never as minus zero; `-` if there is none."""
    if value is None:
        return "-"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text


def humanised(count: int | None) -> str:
    """Write a count with three figures and a unit, such as `12.3G`; `-` if there is none."""
    if count is None:
        return "-"
    size, unit = next(((size, unit) for size, unit in _UNITS if count >= size), (1.0, ""))
    decimals = max(0, 3 - len(f"{count / size:.0f}")) if unit else 0
    return f"{count / size:.{decimals}f}{unit}"


_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def significant(value: float | None) -> str:
    """Write a number with three figures; `-` if there is none."""
    return "-" if value is None else f"{value:.3g}"


def interval_text(quantity: Quantity, write: Callable[[float | None], str]) -> str:
    """Write an interval as `[low, high]`; nothing if there is none."""
    return "" if quantity.interval is None else "[{}, {}]".format(*(write(end) for end in quantity.interval))


def time_text(row: Row) -> str:
    """Write a row's time over keep-all's with its interval, `?` if it is unreliable; nothing if it was not timed."""
    ratio = finite(row.measurement.latency_ratio)
    if ratio is None:
        return ""
    low, high = row.measurement.latency_ratio_low, row.measurement.latency_ratio_high
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]" + (" ?" if row.measurement.latency_problems else "")
