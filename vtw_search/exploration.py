"""How the candidates of one task are found and measured, alone or as one of several workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vtw_search.evaluation.tasks import Sample
from vtw_search.policies import Policy
from vtw_search.preparation import Prepared, limits_of, load
from vtw_search.results import Row
from vtw_search.search.answer import judged_rows
from vtw_search.search.limits import Limits
from vtw_search.search.noise import NoiseQuestion
from vtw_search.search.racing import Racing
from vtw_search.search.reach import check_reach, check_slices, reach
from vtw_search.search.sampling import DEFAULT_SAMPLER, SamplerSettings, explore
from vtw_search.search.slices import slices_in
from vtw_search.search.space import Space, candidates_of
from vtw_search.search.study import Study
from vtw_search.search.study_settings import CONFIRMATION, SEARCH_SPLITS
from vtw_search.settings import SearchConfig


def check_by_measuring(config: SearchConfig, study: Study) -> None:
    """Check what limits ask of noise and of measured slices. All tasks come first: candidates may take days.

    Raises:
        ConfigError: a limit on KL is below the noise floor, or one on a measured slice has no sample to be judged by,
            or too few to be tested on.
        EvidenceError: the noise or the slices cannot be measured.
    """
    limits = limits_of(config, study.settings.task)
    noise_of(config, study, limits).floor()
    _check_measured_slices(study, limits)


def _check_measured_slices(study: Study, limits: Limits) -> None:
    """Measure what limited slices depend on, and check these limits as the others were before anything ran."""
    if study.settings.pooled is None:
        return
    found: dict[str, list[Sample]] = {}
    for splits in (SEARCH_SPLITS,) if limits.confidence is None else (SEARCH_SPLITS, CONFIRMATION):
        study.measure_slices(splits)
        found |= {split: study.sliced(splits, split) for split in splits}
    check_slices(study.settings.task, limits, found)
    if limits.confidence is not None:
        check_reach({study.settings.task: reach(limits, found["confirmation"], limits.confidence)}, limits.confidence)


def racing_of(prepared: Prepared, study: Study, limits: Limits) -> Racing | None:
    """Return the races of one task's candidates; None in a small space, whose tables and curves are then complete."""
    config = prepared.config
    if config.racing.above is None or not prepared.space.has_more_than(config.racing.above):
        return None
    samples = [sample for split in SEARCH_SPLITS for sample in study.sliced(SEARCH_SPLITS, split)]
    return Racing(limits, config.racing.confidence, tuple(slices_in(samples)))


def explored_alone(
    config: SearchConfig, study: Study, space: Space, limits: Limits, racing: Racing | None
) -> list[Policy]:
    """Return the candidates of one task: all of a small space, or what a sampler has measured of a large one."""
    settings = sampler_settings(config, space)
    if settings is None:
        return candidates_of(space)
    return explore(space, settings, space.seeds(settings.trials), partial(judged, study, limits, racing))


def sampler_settings(config: SearchConfig, space: Space, worker: int = 0) -> SamplerSettings | None:
    """Return how a space is explored; None where it is enumerated."""
    sampler = config.sampler
    if sampler.name == "enumerate" or (sampler.name == "auto" and not space.has_more_than(sampler.enumerate_up_to)):
        return None
    name = DEFAULT_SAMPLER if sampler.name == "auto" else sampler.name
    return SamplerSettings(name, sampler.trials, sampler.batch, config.seed + worker, sampler.pool)


def judged(study: Study, limits: Limits, racing: Racing | None, policies: Sequence[Policy]) -> list[Row]:
    """Measure policies, and keep-all, and return their judged rows."""
    wanted = list(dict.fromkeys([Policy.keep_all(), *policies]))
    return judged_rows(study.measure(wanted, racing), wanted, limits)


def noise_of(config: SearchConfig, study: Study, limits: Limits) -> NoiseQuestion:
    """Return what is to be asked of a study's noise."""
    reload = partial(load, config, revision=study.loaded.facts.fingerprint.revision)
    return NoiseQuestion(study, limits, config.noise.samples, config.noise.variations, reload)
