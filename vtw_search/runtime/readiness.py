"""A policy made ready for one model: everything that it names is looked up and checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from vtw_search.errors import PolicyError
from vtw_search.facts import ModelFacts
from vtw_search.operators import BUDGETS, find_operator
from vtw_search.policies import Policy, Stage
from vtw_search.runtime.stages import ReadyStage
from vtw_search.scorers import complete, complete_options, find_scorer


def make_ready(policy: Policy, facts: ModelFacts) -> tuple[ReadyStage, ...]:
    """Look everything up that a policy names, and check it against the model.

    Returns:
        the stages that act; one at K = L leaves every token and is left out.

    Raises:
        PolicyError: a stage breaks a rule of its operator or scorer, or the model cannot do it.
        UnknownNameError: an operator or scorer does not exist.
    """
    return _make_ready(policy, facts)


@lru_cache(maxsize=1024)
def _make_ready(policy: Policy, facts: ModelFacts) -> tuple[ReadyStage, ...]:
    stages = [_ready(stage) for stage in policy.stages]
    _check_order(policy, stages)
    for ready in stages:
        _check_rules(ready)
        _check_model(ready, facts)
    return tuple(ready for ready in stages if ready.layer < facts.num_layers)


def _ready(stage: Stage) -> ReadyStage:
    operator = find_operator(stage.operator)
    scorer = find_scorer(stage.scorer.name) if stage.scorer else None
    options = complete(f"operator {operator.name!r}", operator.options, stage.options)
    scorer_options = complete_options(scorer, stage.scorer.options) if scorer and stage.scorer else {}
    return ReadyStage(stage, operator, options, scorer, scorer_options)


def _check_order(policy: Policy, stages: Sequence[ReadyStage]) -> None:
    for before, after in pairwise(stages):
        if not before.operator.may_be_followed:
            rule = f"no stage may follow {before.operator.name!r}"
            raise PolicyError(rule, value=policy.label(), remedy="remove what follows")
        if after.layer <= before.layer:
            remedy = "sort them, and give each stage a layer of its own"
            raise PolicyError("stages must be ordered by layer", value=policy.label(), remedy=remedy)


def _check_rules(ready: ReadyStage) -> None:
    stage, operator = ready.stage, ready.operator
    if stage.site != operator.site:
        where = "before the decoder, layer 0" if operator.site == "vision" else "inside the decoder"
        remedy = f"set site={operator.site}"
        raise PolicyError(f"{operator.name!r} acts {where}", value=f"{stage.site}, layer {stage.layer}", remedy=remedy)
    if stage.site == "decoder" and stage.position == "recount":
        remedy = "position=keep; only what leaves before the decoder can be left uncounted"
        raise PolicyError("a decoder stage keeps positions", value=stage.label(), remedy=remedy)
    _check_keep(ready)
    if operator.ranks != (ready.scorer is not None):
        remedy = "name a scorer" if operator.ranks else "remove the scorer"
        rule = f"{operator.name!r} {'needs a' if operator.ranks else 'takes no'} scorer"
        raise PolicyError(rule, value=stage.label(), remedy=remedy)
    if stage.site == "vision" and ready.reads == "attention":
        remedy = "use a scorer that reads the tower or nothing, or prune at decoder layer 1 or later"
        raise PolicyError("before the decoder there is no decoder attention", value=stage.label(), remedy=remedy)


def _check_keep(ready: ReadyStage) -> None:
    keep, operator = ready.stage.keep, ready.operator
    allowed = {"nothing": keep is None, "share": isinstance(keep, float), "any": keep is not None}[operator.keeps]
    if not allowed:
        what = {"nothing": "takes no keep", "share": "needs keep as a share in (0, 1]", "any": "needs keep"}
        remedy = "a share such as 0.5, a count such as 64, or a budget such as knee"
        raise PolicyError(f"{operator.name!r} {what[operator.keeps]}", value=keep, remedy=remedy)
    if isinstance(keep, str) and keep not in BUDGETS:
        raise PolicyError(f"a budget must be one of {', '.join(BUDGETS)}", value=keep)
    if isinstance(keep, str) and ready.scorer is not None and ready.reads == "nothing":
        remedy = "give keep as a share or a count"
        raise PolicyError(f"the scores of {ready.scorer.name!r} decide no budget", value=keep, remedy=remedy)


def _check_model(ready: ReadyStage, facts: ModelFacts) -> None:
    stage, family = ready.stage, facts.fingerprint.type
    if stage.site == "decoder" and not facts.supports(stage.layer):
        rule = f"a layer of this {family} model must lie in {facts.first_layer}..{facts.last_layer}"
        raise PolicyError(rule, value=stage.layer, remedy=f"K = {facts.num_layers} keeps every token")
    wanted = {
        "before_decoder": stage.site == "vision",
        "grids": ready.needs_grids,
        "recount": ready.recounts,
        "vision": ready.reads == "vision",
        "class_token": ready.reads == "vision" and "vision" not in facts.missing and _reads_class_token(ready, facts),
    }
    for capability, needed in wanted.items():
        problem = facts.missing.get(capability)
        if needed and problem is not None:
            raise PolicyError(
                f"{stage.label()} cannot run on this {family} model: {problem.reason}", remedy=problem.remedy
            )


def _reads_class_token(ready: ReadyStage, facts: ModelFacts) -> bool:
    needs = ready.vision_needs(max(facts.vision_layers, 1))
    return bool(needs.cls_layers) or needs.similarity
