"""Which models may run under a policy although no adapter was written for their family."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import transformers
from torch import nn

from vtw_search.errors import ModelError
from vtw_search.facts import whole_config_digest
from vtw_search.policies import Certificate

_accepted: weakref.WeakKeyDictionary[nn.Module, Certificate] = weakref.WeakKeyDictionary()
_REMEDY = "run vtw_search.conformance.certify(model, processor), or apply the policy file of a search on this model"


def make_certificate(model: nn.Module, deviations: dict[str, float], failed: str | None) -> Certificate:
    """Return a certificate of what was found on `model` just now."""
    config: Any = model.config
    return Certificate(
        model_type=config.model_type,
        config_digest=whole_config_digest(config.to_dict()),
        torch=torch.__version__,
        transformers=transformers.__version__,
        deviations=deviations,
        failed=failed,
    )


def accept_certificate(model: nn.Module, certificate: Certificate) -> None:
    """Let policies run on `model` in this process if its certificate allows it; `require_certificate` judges."""
    _accepted[model] = certificate


def require_certificate(model: nn.Module) -> None:
    """Raise ModelError unless a passed certificate of this very model and these versions was accepted."""
    certificate = _accepted.get(model)
    rule = "a family without an adapter of its own needs a certificate"
    config: Any = model.config
    if certificate is None:
        raise ModelError(rule, value=config.model_type, remedy=_REMEDY)
    if certificate.failed is not None:
        remedy = f"it failed: {certificate.failed}"
        raise ModelError("the conformance check must pass", value=config.model_type, remedy=remedy)
    current = make_certificate(model, {}, None)
    for name in ("model_type", "config_digest", "torch", "transformers"):
        stated, found = getattr(certificate, name), getattr(current, name)
        if stated != found:
            raise ModelError(f"the certificate is for {name} {stated}", value=found, remedy=_REMEDY)
