"""How much work racing saved, in layer-tokens of the one pass.

Answers that have to be generated, since they are not the reference's, are not counted; they are most for candidates
that break their limits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from vtw_search.engine import Extent, LayerTokens, pass_cost
from vtw_search.facts import ModelFacts
from vtw_search.policies import Policy
from vtw_search.records import Measurement
from vtw_search.results import RacingResult
from vtw_search.runtime import make_ready
from vtw_search.search.racing import Racing
from vtw_search.search.study import MOST_AT_ONCE, Study
from vtw_search.tokens import TokenLayout, subject

Cost = Callable[[Sequence[Policy]], LayerTokens]


def saving(study: Study, measurements: Sequence[Measurement], frame: pd.DataFrame, racing: Racing) -> RacingResult:
    """Return what racing saved on the measurements of all candidates, keep-all among them, and their records."""
    extent = extent_of(study.profiler.layout, float(frame["answer_tokens"].mean()))
    cost = cost_of(frame, study.loaded.facts, extent, MOST_AT_ONCE)
    return racing_result(measurements, frame, cost, study.settings.batch_size, racing.confidence)


def extent_of(layout: TokenLayout, answer_tokens: float) -> Extent:
    """Return the tokens of a layout of one row with an answer behind it, the last token of which is not needed."""
    visual = subject(layout.visual, ~layout.padding)[0]
    shared = int(visual.int().argmax())
    return Extent(shared, len(visual) - shared - int(visual.sum()) + answer_tokens - 1, int(visual.sum()))


def cost_of(frame: pd.DataFrame, facts: ModelFacts, extent: Extent, at_once: int) -> Cost:
    """Return what it costs to score policies on one sample, at most `at_once` of them in one pass.

    How many visual tokens stages leave is the mean over the records in `frame`, since scores may decide it.
    """
    groups = {str(digest): texts for digest, texts in frame["visual_left"].dropna().groupby(frame["policy"])}
    left = {name: np.mean([json.loads(text) for text in texts], axis=0) for name, texts in groups.items()}

    def cost(policies: Sequence[Policy]) -> LayerTokens:
        total = LayerTokens()
        for start in range(0, len(policies), at_once):
            part = policies[start : start + at_once]
            ready = [make_ready(policy, facts) for policy in part]
            total += pass_cost(ready, [left[policy.digest()] for policy in part], extent, facts.num_layers)
        return total

    return cost


def racing_result(
    measurements: Sequence[Measurement], frame: pd.DataFrame, cost: Cost, batch_size: int, confidence: float
) -> RacingResult:
    """Return how many candidates were stopped, and the work that this saved.

    Args:
        measurements: of all candidates, keep-all first; those that failed are left out.
        frame: their sample records.
        cost: of policies on one sample.
        batch_size: samples per batch; a candidate is scored on whole batches.
        confidence: of the racing.
    """
    policies = [row.policy for row in measurements if row.failure is None]
    batches = frame.assign(batch=frame["position"] // batch_size).groupby(["split", "batch"])
    whole, done = LayerTokens(), LayerTokens()
    everything = cost(policies)
    for _, rows in batches:
        scored, samples = set(rows["policy"]), rows["position"].nunique()
        whole += everything.times(samples)
        done += cost([policy for policy in policies if policy.digest() in scored]).times(samples)
    stopped = sum(row.stopped is not None for row in measurements)
    saved = [
        1 - part / all_ if all_ else 0.0 for part, all_ in ((done.branches, whole.branches), (done.total, whole.total))
    ]
    return RacingResult(confidence, stopped, len(measurements), *map(float, saved))
