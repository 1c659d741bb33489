"""Running a model under a policy."""

from vtw_search.runtime.apply import ActivePolicy, apply_policy, check_policy, run_under_policy, unwrapped
from vtw_search.runtime.certificates import accept_certificate, make_certificate, require_certificate
from vtw_search.runtime.readiness import make_ready

__all__ = [
    "ActivePolicy",
    "accept_certificate",
    "apply_policy",
    "check_policy",
    "make_certificate",
    "make_ready",
    "require_certificate",
    "run_under_policy",
    "unwrapped",
]
