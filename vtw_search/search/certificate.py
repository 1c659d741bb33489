"""The certificate of a search's model: made once, kept in the search's folder, made anew when it no longer holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vtw_search.conformance import certify
from vtw_search.errors import PolicyFileError
from vtw_search.evaluation.model import LoadedModel
from vtw_search.files import write_text_atomically
from vtw_search.policies import Certificate, read_certificate
from vtw_search.runtime import certificate_error, record_certificate, require_certificate


def model_certificate(loaded: LoadedModel, folder: Path, say: Callable[[str], None]) -> Certificate | None:
    """Return the model's certificate, from `folder` or made now; None where the family needs none.

    Args:
        loaded: the model.
        folder: `runs/<search>`.
        say: takes one sentence for the user.

    Raises:
        ModelError: the conformance check failed.
    """
    if not loaded.adapter.needs_certificate:
        return None
    path = folder / "certificate.json"
    certificate = _stored(loaded, path, say)
    if certificate is None:
        say(f"no adapter was written for {loaded.facts.fingerprint.type}: checking the runtime on this model")
        certificate = certify(loaded.model, loaded.processor)
        write_text_atomically(path, certificate.model_dump_json(indent=2) + "\n")
    record_certificate(loaded.model, certificate)
    require_certificate(loaded.model)
    return certificate


def _stored(loaded: LoadedModel, path: Path, say: Callable[[str], None]) -> Certificate | None:
    if not path.exists():
        return None
    try:
        certificate = read_certificate(path)
    except PolicyFileError as error:
        say(str(error))
        return None
    error_of_it = certificate_error(loaded.model, certificate)
    if error_of_it is None:
        return certificate
    say(f"{path} no longer holds: {error_of_it}")
    return None
