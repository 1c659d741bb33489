"""Whether the runtime is right on a loaded model: one contract of its adapter, six of its own, on small inputs.

The command `vtw-policy check`, the certificates and the tests use this same code.
"""

from vtw_search.conformance.check import Finding, Report, certificate_of, certify, check_model
from vtw_search.conformance.probes import Probe, processor_probes, text_row

__all__ = ["Finding", "Probe", "Report", "certificate_of", "certify", "check_model", "processor_probes", "text_row"]
