"""Policies as data, and the files that hold them."""

from vtw_search.policies.certificate import Certificate, read_certificate
from vtw_search.policies.policy import Policy, PolicySet, TaskPolicy
from vtw_search.policies.policy_file import load_policy, parse_policy, policy_content, policy_schema, save_policy
from vtw_search.policies.stage import ScorerChoice, Stage

__all__ = [
    "Certificate",
    "Policy",
    "PolicySet",
    "ScorerChoice",
    "Stage",
    "TaskPolicy",
    "load_policy",
    "parse_policy",
    "policy_content",
    "policy_schema",
    "read_certificate",
    "save_policy",
]
