"""Policies and policy files."""

from vtw_search.policies.policy import Policy, PolicySet, Stage, TaskPolicy
from vtw_search.policies.policy_file import load_policy, parse_policy, policy_schema, save_policy

__all__ = [
    "Policy",
    "PolicySet",
    "Stage",
    "TaskPolicy",
    "load_policy",
    "parse_policy",
    "policy_schema",
    "save_policy",
]
