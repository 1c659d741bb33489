"""Which slices the samples of a study are in: those of the task, of the content, and the one that is measured.

`downsampling_fails` are the samples that keep-all answers rightly and a grid pooled 2 x 2 does not, after VTC-Bench
(arXiv 2510.07143), which filters benchmarks for the samples that a smaller image loses. Whether a sample is in it
depends on keep-all and one fixed policy, and on no candidate. So those of a confirmation split are independent draws of
such samples, however many they are, and a test on them holds its level.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from vtw_search.errors import ConfigError, EvidenceError, PolicyError
from vtw_search.evaluation.tasks import DOWNSAMPLING_FAILS, Sample
from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy
from vtw_search.recipes import find_recipe
from vtw_search.runtime import make_ready

# What the measured slice may be.
MEASURED = ((DOWNSAMPLING_FAILS, "no"), (DOWNSAMPLING_FAILS, "yes"))
# A score from which an answer is right; metrics between 0 and 1 have no sharper line.
_RIGHT = 0.5
_REMEDY = f"leave {DOWNSAMPLING_FAILS} out of limits.slices"


def pooled_grid(facts: ModelFacts) -> Policy:
    """Return the policy that pools each 2 x 2 cell of the visual tokens into one.

    Raises:
        ConfigError: the model's visual tokens cannot be pooled.
    """
    # Positions stay: the slice is about a coarser grid, not about text at another distance from the image.
    policy = find_recipe("downsample").policy(facts, {"keep": 0.25, "mode": "mean", "position": "keep"})
    assert policy is not None, "the recipe has a policy for every share"
    try:
        make_ready(policy, facts)
    except PolicyError as error:
        raise ConfigError(
            f"the slice {DOWNSAMPLING_FAILS} needs a pooled grid: {error.rule}", remedy=_REMEDY
        ) from error
    return policy


def slices_in(samples: Iterable[Sample]) -> list[tuple[str, str]]:
    """Return the (name, value) pairs of slices that occur in samples, sorted."""
    return sorted({pair for sample in samples for pair in sample.all_slices.items()})


class Slices:
    """The slices of a study's samples.

    Args:
        samples: of all its splits.
        pooled: the policy whose failures are a slice; None where no limit is on it.
    """

    def __init__(self, samples: Sequence[Sample], pooled: Policy | None) -> None:
        self._samples, self._pooled = {sample.id: sample for sample in samples}, pooled

    @property
    def needed(self) -> list[Policy]:
        """The policies that have to be measured on a split before its slices are known."""
        return [] if self._pooled is None else [Policy.keep_all(), self._pooled]

    def texts(self, frame: pd.DataFrame) -> dict[str, str]:
        """Return, per sample, all of its slices as JSON, given the sample records of a store."""
        measured = self._measured(frame)
        return {
            name: json.dumps({**sample.all_slices, **measured.get(name, {})}, sort_keys=True)
            for name, sample in self._samples.items()
        }

    def sliced(self, samples: Sequence[Sample], frame: pd.DataFrame) -> list[Sample]:
        """Return samples with what was measured of them among their slices."""
        measured = self._measured(frame)
        return [replace(sample, slices={**sample.slices, **measured.get(sample.id, {})}) for sample in samples]

    def are_known(self, samples: Sequence[Sample], frame: pd.DataFrame) -> bool:
        """Whether what is needed for the slices of samples was measured, given the sample records of their store."""
        return self._measured(frame).keys() >= {sample.id for sample in samples}

    def check(self, frame: pd.DataFrame) -> None:
        """Refuse to go on without the pooled grid's answers.

        Raises:
            EvidenceError: it failed on a sample.
        """
        own = frame[frame["policy"].isin([policy.digest() for policy in self.needed])]
        failures = own.loc[own["failure"].notna(), "failure"]
        if len(failures):
            rule = f"the slice {DOWNSAMPLING_FAILS} needs a pooled grid on every sample"
            raise EvidenceError(rule, value=str(failures.iloc[0]), remedy=_REMEDY)

    def _measured(self, frame: pd.DataFrame) -> Mapping[str, Mapping[str, str]]:
        if self._pooled is None:
            return {}
        kept, pooled = (
            frame[frame["policy"] == policy.digest()].set_index("sample")["score"].astype(float).dropna()
            for policy in self.needed
        )
        both = kept.index.intersection(pooled.index)
        fails = (kept[both] >= _RIGHT) & (pooled[both] < _RIGHT)
        return {str(name): {DOWNSAMPLING_FAILS: "yes" if failed else "no"} for name, failed in fails.items()}


def with_slices(frame: pd.DataFrame, texts: Mapping[str, str]) -> pd.DataFrame:
    """Return sample records with all slices of their samples, in place of the task's own alone."""
    return frame.assign(slices=frame["sample"].map(texts).astype("string"))
