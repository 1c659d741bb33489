"""Find how few visual tokens a vision-language model needs, and deploy the answer.

Deployment needs the names below and nothing else:

    from vtw_search import apply_policy, load_policy
    with apply_policy(model, load_policy("policy.json"), task="digits_read"):
        model.generate(**inputs)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtw_search.policies import Policy, PolicySet, Stage, load_policy, save_policy
    from vtw_search.runtime import ActivePolicy, apply_policy

__version__ = "0.1.0"

__all__ = ["ActivePolicy", "Policy", "PolicySet", "Stage", "__version__", "apply_policy", "load_policy", "save_policy"]

# Where each name is made. It is imported when it is asked for, so that policies are read without torch.
_HOMES = {
    "ActivePolicy": "vtw_search.runtime",
    "Policy": "vtw_search.policies",
    "PolicySet": "vtw_search.policies",
    "Stage": "vtw_search.policies",
    "apply_policy": "vtw_search.runtime",
    "load_policy": "vtw_search.policies",
    "save_policy": "vtw_search.policies",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
