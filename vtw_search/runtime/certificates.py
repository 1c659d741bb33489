"""Which models may run under a policy although no adapter was written for their family."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import nn

from vtw_search.adapters import find_adapter
from vtw_search.errors import ModelError
from vtw_search.facts import ModelFacts, whole_config_digest
from vtw_search.policies import Certificate

_found: weakref.WeakKeyDictionary[nn.Module, Certificate] = weakref.WeakKeyDictionary()
_REMEDY = "run vtw_search.conformance.certify(model, processor), or apply the policy file of a search on this model"


def make_certificate(
    model: nn.Module, layers: Sequence[int], deviations: dict[str, float], failed: str | None
) -> Certificate:
    """Return a certificate of what was found on `model` just now, with withdrawal at each of `layers`."""
    config: Any = model.config
    return Certificate(
        model_type=config.model_type,
        config_digest=whole_config_digest(config.to_dict()),
        torch=torch.__version__,
        transformers=transformers.__version__,
        attention=_facts(model).attention,
        dtype=str(model.dtype).removeprefix("torch."),
        layers=tuple(sorted(layers)),
        deviations=deviations,
        failed=failed,
    )


def record_certificate(model: nn.Module, certificate: Certificate) -> None:
    """Note what the check found on `model`, failed or not, for this process; `require_certificate` judges it."""
    _found[model] = certificate


def require_certificate(
    model: nn.Module, offered: Certificate | None = None, trusted: Certificate | None = None
) -> Certificate | None:
    """Raise ModelError unless a certificate lets policies run on `model`.

    Args:
        model: of a family without an adapter of its own.
        offered: what a policy file carries. It counts where this process has found nothing itself that still holds.
        trusted: what the caller vouches for. It must hold, and counts in place of `offered`.

    Returns:
        `offered` if it is what counts, for it is a claim that nobody here has checked; None otherwise.
    """
    if trusted is not None:
        _raise(certificate_error(model, trusted))
    own, offered = _found.get(model), trusted or offered
    certificate = offered if own is None or (offered is not None and not _still_holds(model, own)) else own
    if certificate is None:
        rule = "a family without an adapter of its own needs a certificate"
        raise ModelError(rule, value=model.config.model_type, remedy=_REMEDY)  # type: ignore[union-attr]
    _raise(certificate_error(model, certificate))
    return certificate if certificate is offered and trusted is None else None


def certificate_error(model: nn.Module, certificate: Certificate) -> ModelError | None:
    """Return why `certificate` does not let policies run on `model`; None when it does."""
    mismatch = _mismatch(model, certificate)
    if mismatch is not None or certificate.failed is None:
        return mismatch or _unchecked_layers(model, certificate)
    remedy = f"it failed: {certificate.failed}"
    return ModelError("the conformance check must pass", value=certificate.model_type, remedy=remedy)


def _raise(error: ModelError | None) -> None:
    if error is not None:
        raise error


def _still_holds(model: nn.Module, certificate: Certificate) -> bool:
    """Tell whether a verdict, good or bad, is about the model as it is now."""
    if _mismatch(model, certificate) is not None:
        return False
    return certificate.failed is not None or _unchecked_layers(model, certificate) is None


def _mismatch(model: nn.Module, certificate: Certificate) -> ModelError | None:
    current = make_certificate(model, (), {}, None)
    for name in ("model_type", "config_digest", "torch", "transformers", "attention"):
        stated, found = getattr(certificate, name), getattr(current, name)
        if stated != found:
            return ModelError(f"the certificate is for {name} {stated}", value=found, remedy=_REMEDY)
    return None


def _unchecked_layers(model: nn.Module, certificate: Certificate) -> ModelError | None:
    missing = sorted(set(_facts(model).possible_layers) - set(certificate.layers))
    if not missing:
        return None
    rule = "a certificate must be of every layer K that the model allows"
    return ModelError(rule, value=f"none for {missing}", remedy=_REMEDY)


def _facts(model: nn.Module) -> ModelFacts:
    return find_adapter(model).facts(model)
