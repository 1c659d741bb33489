"""What the samples at hand can certify, said before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vtw_search.errors import ConfigError, UnknownNameError
from vtw_search.evaluation.certify import Certifiable, certifiable_mean, certifiable_share
from vtw_search.evaluation.metrics import find_metric
from vtw_search.evaluation.paired import is_exact
from vtw_search.evaluation.tasks import Sample
from vtw_search.search.judge import check_costs
from vtw_search.search.limits import Limits, QualityLimit
from vtw_search.search.objective import objective_of
from vtw_search.search.slices import MEASURED, slices_in
from vtw_search.search.study_settings import CONFIRMATION, SEARCH_SPLITS


def check_names(task: str, limits: Limits, samples: Sequence[Sample], timed: bool) -> None:
    """Check every name in the limits of a task before anything is measured.

    Raises:
        UnknownNameError: a slice, a cost or a column does not exist.
        ConfigError: a time is limited, and nothing will be timed.
    """
    objective_of(limits.prefer, limits.weights)
    check_costs(limits, timed)
    try:
        limits.quality(_known(samples))
    except UnknownNameError as error:
        remedy = f"{error.remedy}; limits of one task alone are written +limits.per_task.<task>.slices.<slice>..."
        raise UnknownNameError(f"{task}: {error.rule}", remedy=remedy) from error


def _known(samples: Iterable[Sample]) -> list[tuple[str, str]]:
    """Return the slices that occur in samples, and the measured one, whose values are known before that."""
    return sorted({*slices_in(samples), *MEASURED})


def judging(limits: Limits) -> tuple[str, ...]:
    """Return the splits whose samples limits are judged and tested on."""
    return SEARCH_SPLITS if limits.confidence is None else (*SEARCH_SPLITS, *CONFIRMATION)


def check_slices(task: str, limits: Limits, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Refuse limits on slices that no sample of the search can be judged by.

    Args:
        task: its name.
        limits: of that task; on a slice that is measured only once it was.
        splits: the samples of `judging`.

    Raises:
        ConfigError: names the limits and where they have no sample.
    """
    missing = []
    for limit in limits.quality(_known(sample for samples in splits.values() for sample in samples)):
        split = "selection" if limit.quantity == "drop" else "calibration"
        count = None if split == "selection" else limits.kl_samples
        if limit.slice_ and not any(limit.slice_ in each.all_slices.items() for each in splits[split][:count]):
            missing.append(f"{limit.name} has none in {split}")
    if missing:
        remedy = (
            "limit those values of the slice that occur often enough, bring more such samples, or raise "
            "samples.calibration and samples.selection"
        )
        rule = f"every limit on a slice of {task} must have samples to be judged by"
        raise ConfigError(rule, value="; ".join(missing), remedy=remedy)


def is_binary(samples: Sequence[Sample]) -> bool:
    """Whether every sample is scored 0 or 1."""
    return all(find_metric(sample.metric).binary for sample in samples)


def check_cap(task: str, limits: Limits) -> None:
    """Refuse a cap on single KL values with which the test of their mean would say nothing: E[min(KL, c)] <= c.

    Raises:
        ConfigError: the cap of a task is not above each of its limits on a mean KL, those of slices included.
    """
    cap = limits.kl_cap_nats
    if cap is None:
        return
    asked = {"kl_nats": limits.kl_nats}
    asked |= {f"slices.{key}.kl_nats": bounds.get("kl_nats") for key, bounds in limits.slices.items()}
    empty = {name: bound for name, bound in asked.items() if bound is not None and bound >= cap}
    if empty:
        rule = (
            f"limits.kl_cap_nats must be above every limit on a mean KL of {task}: the mean of min(KL, cap) is at most "
            "the cap, so that every policy would pass"
        )
        remedy = "raise limits.kl_cap_nats, or leave it out: it is ten times the limit then; or lower the limit"
        raise ConfigError(rule, value={"kl_cap_nats": cap, **empty}, remedy=remedy)


def reach(limits: Limits, samples: Sequence[Sample], level: float, others: Sequence[Sample] = ()) -> list[Certifiable]:
    """Return the best case of every quality limit on these samples of the confirmation split.

    Args:
        limits: what is asked for.
        samples: of the confirmation split.
        level: confidence.
        others: samples of the other splits; a slice of theirs alone is limited, too, by no image.

    Raises:
        UnknownNameError: a slice is limited that does not occur in any of them.
    """
    return [_best_case(limit, limits, samples, level) for limit in limits.quality(_known([*samples, *others]))]


def _best_case(limit: QualityLimit, limits: Limits, samples: Sequence[Sample], level: float) -> Certifiable:
    part = [sample for sample in samples if limit.slice_ is None or limit.slice_ in sample.all_slices.items()]
    clusters = [sample.cluster for sample in part]
    images = len(set(clusters))
    if limit.quantity == "kl":
        return certifiable_mean(limit.name, limit.bound, images, level, 0.0, 0.0, limits.cap_nats(limit))
    if limit.quantity == "tail" or is_exact(clusters, is_binary(samples)):
        return certifiable_share(limit.name, limit.bound, images, level)
    return certifiable_mean(limit.name, limit.bound, images, level, 0.0, -1.0, 1.0)


def check_reach(found: Mapping[str, Sequence[Certifiable]], level: float) -> None:
    """Refuse limits that no candidate could be confirmed under.

    Args:
        found: per task, what `reach` returned.
        level: confidence.

    Raises:
        ConfigError: names them all, with the number of images that they need.
    """
    missed = [f"{task}: {each.text}" for task, cases in found.items() for each in cases if not each.in_reach]
    if missed:
        remedy = (
            "raise samples.confirmation or bring more images, loosen the limit, limit fewer slices, or set "
            "limits.confidence=null to choose by point estimates alone"
        )
        raise ConfigError(
            f"limits must be within reach of {level:.0%} confidence", value="; ".join(missed), remedy=remedy
        )


def reach_text(found: Mapping[str, Sequence[Certifiable]], level: float) -> str:
    """Return the plain statement of what can be certified, one line per task."""
    lines = []
    for task, cases in found.items():
        best = ", ".join(f"{each.limit} down to {each.smallest:.2g} ({each.asked:g} asked)" for each in cases)
        lines.append(f"{task}: {cases[0].images if cases else 0} images certify at best {best or 'nothing: no limit'}")
    return f"with {level:.0%} confidence\n  " + "\n  ".join(lines)
