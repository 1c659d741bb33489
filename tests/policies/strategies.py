"""Random policies over all operators and scorers, from their own tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from vtw_search import Policy, PolicySet, Stage
from vtw_search.facts import ModelFingerprint
from vtw_search.operators import BUDGETS, OPERATORS
from vtw_search.policies import Certificate, ScorerChoice, TaskPolicy
from vtw_search.scorers import SCORERS

MODEL = ModelFingerprint(id="m", revision=None, type="llava", num_layers=12, config_digest="0123456789abcdef")
shares = st.one_of(st.sampled_from([1.0, 0.5]), st.floats(0, 1, exclude_min=True))
keeps = {
    "nothing": st.none(),
    "share": shares,
    "any": st.one_of(shares, st.sampled_from([1, 2]), st.integers(1, 2**31 - 1), st.sampled_from(sorted(BUDGETS))),
}


def _value(default: Any) -> st.SearchStrategy[Any]:
    if isinstance(default, tuple):
        return st.sampled_from(default)
    if isinstance(default, str):
        return st.just(default)
    numbers = {bool: st.booleans(), int: st.integers(-99, 99), float: st.floats(allow_nan=False, allow_infinity=False)}
    return numbers[type(default)]


def _options(defaults: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: _value(default) for name, default in defaults.items()})


def _scorer(name: str) -> st.SearchStrategy[ScorerChoice]:
    return st.builds(ScorerChoice, name=st.just(name), options=_options(SCORERS[name].options))


def _stage(name: str) -> st.SearchStrategy[Stage]:
    operator = OPERATORS[name]
    before = operator.site == "vision"
    return st.builds(
        Stage,
        site=st.just(operator.site),
        layer=st.just(0) if before else st.integers(1, 99),
        operator=st.just(name),
        keep=keeps[operator.keeps],
        scorer=st.sampled_from(sorted(SCORERS)).flatmap(_scorer) if operator.ranks else st.none(),
        position=st.sampled_from(["keep", "recount"]) if before else st.just("keep"),
        options=_options(operator.options),
    )


stages = st.sampled_from(sorted(OPERATORS)).flatmap(_stage)
policies = st.builds(Policy, stages=st.lists(stages, max_size=3).map(tuple))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(max_size=5), json_values, max_size=3)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)
certificates = st.builds(
    Certificate,
    model_type=st.just("x"),
    config_digest=st.just("0"),
    torch=st.just("2"),
    transformers=st.just("5"),
    layers=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    deviations=st.dictionaries(st.text(max_size=5), st.floats(0, 1), max_size=2),
)
policy_sets = st.builds(
    PolicySet,
    model=st.just(MODEL),
    default=policies,
    tasks=st.dictionaries(
        names,
        st.builds(TaskPolicy, policy=policies, verdict=st.text(max_size=9), limits=json_objects),
        max_size=3,
    ),
    certificate=st.none() | certificates,
    provenance=json_objects,
)
