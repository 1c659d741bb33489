"""Running the contracts on a model, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vtw_search.adapters import find_adapter
from vtw_search.conformance.bench import Bench
from vtw_search.conformance.contracts import CONTRACTS
from vtw_search.conformance.probes import Probe, processor_probes
from vtw_search.policies import Certificate
from vtw_search.runtime import make_certificate, record_certificate, unwrapped
from vtw_search.runtime.deviation import tolerance_of


@dataclass(frozen=True)
class Finding:
    """One contract on one model.

    Attributes:
        contract: its name.
        deviation: the largest that was found, relative to the spread of the logits; None when it failed without one.
        tolerance: what it may be.
        problem: why it does not hold; None when it does.
    """

    contract: str
    deviation: float | None
    tolerance: float
    problem: str | None

    @property
    def passed(self) -> bool:
        """Whether the contract holds."""
        return self.problem is None


@dataclass(frozen=True)
class Report:
    """All contracts on one model.

    Attributes:
        findings: one per contract.
        layers: the K that were checked.
    """

    findings: tuple[Finding, ...]
    layers: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """Whether every contract holds."""
        return all(finding.passed for finding in self.findings)

    @property
    def problem(self) -> str | None:
        """The first contract that failed, and how."""
        return next((f"{item.contract}: {item.problem}" for item in self.findings if item.problem), None)


def check_model(
    model: Any, probes: Sequence[Probe], *, tolerance: float | None = None, layers: list[int] | None = None,
    contracts: Mapping[str, Callable[[Bench], float]] = CONTRACTS,
) -> Report:  # fmt: skip
    """Check every contract on `model`.

    Args:
        model: loaded, in evaluation mode.
        probes: what to run it on; one of them needs an image.
        tolerance: largest deviation relative to the spread of the logits; by default that of the model's dtype.
        layers: which K to check; by default all.
        contracts: which contracts.

    Raises:
        ModelError: the model's structure is not supported at all.
    """
    model = unwrapped(model)
    limit = tolerance_of(model.dtype) if tolerance is None else tolerance
    bench = Bench(model, find_adapter(model), list(probes), limit, layers)
    return Report(tuple(_find(name, contract, bench) for name, contract in contracts.items()), tuple(bench.layers))


def certify(
    model: Any, processor: Any = None, *, probes: Sequence[Probe] | None = None, layers: list[int] | None = None,
    tolerance: float | None = None,
) -> Certificate:  # fmt: skip
    """Check `model` and let policies run on it in this process if every contract holds.

    Args:
        model: loaded, in evaluation mode.
        processor: makes the probes if none are given.
        probes: what to run it on.
        layers: which K to check; by default all, and with less no policy runs yet.
        tolerance: as in `check_model`; for models that amplify rounding.

    Returns:
        The certificate; a policy file carries it. Its `failed` says which contract does not hold.
    """
    inner: Any = unwrapped(model)
    if probes is None:
        probes = processor_probes(find_adapter(inner), processor, inner.device)
    certificate = certificate_of(inner, check_model(inner, probes, layers=layers, tolerance=tolerance))
    record_certificate(inner, certificate)
    return certificate


def certificate_of(model: Any, report: Report) -> Certificate:
    """Return what a report says of `model`, for a file."""
    found = {item.contract: item.deviation for item in report.findings if item.deviation is not None}
    deviations = {name: worst for name, worst in found.items() if math.isfinite(worst)}
    return make_certificate(unwrapped(model), report.layers, deviations, report.problem)


def _find(name: str, contract: Callable[[Bench], float], bench: Bench) -> Finding:
    tolerance = bench.tolerance
    try:
        worst = contract(bench)
    except Exception as error:  # whatever a model raises on a legal input is a finding, and is reported as one
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        return Finding(name, getattr(error, "deviation", None), tolerance, reason)
    problem = None if worst <= tolerance else f"deviation {worst:.1e} is larger than {tolerance:.0e}"
    return Finding(name, worst, tolerance, problem)
