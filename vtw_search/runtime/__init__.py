"""Running a model under a policy."""

from vtw_search.runtime.apply import ActivePolicy, apply_policy, check_policy, run_under_policy, unwrapped
from vtw_search.runtime.certificates import (
    certificate_error,
    make_certificate,
    record_certificate,
    require_certificate,
)
from vtw_search.runtime.readiness import make_ready

__all__ = [
    "ActivePolicy",
    "apply_policy",
    "certificate_error",
    "check_policy",
    "make_certificate",
    "make_ready",
    "record_certificate",
    "require_certificate",
    "run_under_policy",
    "unwrapped",
]
