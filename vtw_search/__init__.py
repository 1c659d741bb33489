"""Find how few visual tokens a vision-language model needs, and deploy the answer.

Deployment needs the names below and nothing else:

    from vtw_search import apply_policy, load_policy
    with apply_policy(model, load_policy("policy.json"), task="digits_read"):
        model.generate(**inputs)
"""

from vtw_search.policies import Policy, PolicySet, Stage, load_policy, save_policy
from vtw_search.runtime import ActivePolicy, apply_policy

__version__ = "0.1.0"

__all__ = ["ActivePolicy", "Policy", "PolicySet", "Stage", "__version__", "apply_policy", "load_policy", "save_policy"]
