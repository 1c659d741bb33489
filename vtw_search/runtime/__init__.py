"""Running a model under a policy."""

from vtw_search.runtime.apply import ActivePolicy, apply_policy, check_policy

__all__ = ["ActivePolicy", "apply_policy", "check_policy"]
