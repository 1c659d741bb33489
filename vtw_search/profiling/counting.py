"""What a prompt costs on a loaded model: audited once, then composed by arithmetic for every policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from profilers.aten import UncountedOperatorError
from profilers.audit import AuditRow, CountsDisagreeError, require_agreement
from profilers.closed_form import dead_macs, projector_macs, tower_macs
from profilers.prefill import PrefillCost
from profilers.shapes import Grid, ModelShape
from vtw_search.adapters import Adapter
from vtw_search.errors import ModelError
from vtw_search.profiling.audit import Audit, audit_model
from vtw_search.profiling.meta import audit_decoder, audit_tower
from vtw_search.profiling.vision import left_out, vision_parts


@dataclass(frozen=True)
class CountedPrompt:
    """The cost of one prompt and what it rests on.

    Attributes:
        cost: gives the macs of any token schedule.
        audit: the counts that agreed.
        not_counted: calls per operator that was left out by name, over all audited modules.
    """

    cost: PrefillCost
    audit: tuple[AuditRow, ...]
    not_counted: Mapping[str, int]


def count_prompt(adapter: Adapter, model: Any, inputs: Mapping[str, Any]) -> CountedPrompt:
    """Count the prompt `inputs`, batch size 1, on a loaded model.

    Vision parts that have a shape record are counted by formula; what has none is counted by running it, and what is
    neither tower, projector, decoder layer nor language head is `other`.

    Raises:
        ModelError: an operator cannot be counted, or the three counts of a module disagree; either is named.
    """
    shape = adapter.shape(model)
    with _named_errors(model):
        audit = audit_model(adapter, model, inputs, every_layer=False)
        require_agreement(audit.rows)
    mask = adapter.expert_visual_mask(model, inputs)
    text = inputs["input_ids"].shape[1] - (0 if mask is None else int(mask.sum()))
    return CountedPrompt(_cost(adapter, model, inputs, shape, audit, text), audit.rows, audit.not_counted)


def count_architecture(adapter: Adapter, model: Any, text_tokens: int, grids: Sequence[Grid]) -> CountedPrompt:
    """Count a prompt of `text_tokens` text tokens and images of `grids` patches on a model without weights.

    Vision parts that only a prompt would show are left out and named in `not_counted`.

    Raises:
        ModelError: as in `count_prompt`.
    """
    shape, parts = adapter.shape(model), vision_parts(adapter, model)
    merge = adapter.merge(model) if parts is None else parts[1].merge
    tokens = text_tokens + sum(rows * columns for rows, columns in grids) // merge
    cost = PrefillCost(shape, text_tokens, vision=0, projector=0)
    with _named_errors(model), _named_gaps_of_meta(model):
        found = [audit_decoder(adapter, model, tokens)]
        if parts is not None:
            tower, projector = parts
            found += audit_tower(adapter, model, tower, grids)
            vision, projected = tower_macs(tower, grids), projector_macs(projector, grids)
            cost = PrefillCost(shape, text_tokens, vision, projected, dead=dead_macs(tower, grids))
        audits = [each.audit(0) for each in found]
        rows = require_agreement(row for audit in audits for row in audit.rows)
    not_counted = Counter(f"vision part: {reason}" for reason in left_out(adapter, model))
    for audit in audits:
        not_counted.update(audit.not_counted)
    return CountedPrompt(cost, rows, dict(not_counted))


@contextmanager
def _named_errors(model: Any) -> Iterator[None]:
    try:
        yield
    except (UncountedOperatorError, CountsDisagreeError) as error:
        raise ModelError(f"the macs of {type(model).__name__} cannot be counted", remedy=str(error)) from error


@contextmanager
def _named_gaps_of_meta(model: Any) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        # On the meta device there are no values; models that route tokens by them cannot run there.
        rule = f"{type(model).__name__} cannot be counted without weights: what it computes depends on values"
        raise ModelError(rule, remedy="search it: a search counts it on real samples") from error


def _cost(
    adapter: Adapter, model: Any, inputs: Mapping[str, Any], shape: ModelShape, audit: Audit, text: int
) -> PrefillCost:
    if shape.tower is None:
        return PrefillCost(shape, text, vision=audit.outside, projector=0)
    grids = adapter.image_grids(model, inputs)
    vision = tower_macs(shape.tower, grids)
    if shape.projector is None:
        return PrefillCost(shape, text, vision, audit.outside - vision, 0, dead_macs(shape.tower, grids))
    projector = projector_macs(shape.projector, adapter.projector_grids(model, inputs))
    other = audit.outside - vision - projector
    return PrefillCost(shape, text, vision, projector, other, dead_macs(shape.tower, grids))
