"""The record that the conformance check has run on a model."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vtw_search.errors import PolicyFileError


class Certificate(BaseModel):
    """What the conformance check found on one model.

    Attributes:
        model_type: of the config.
        config_digest: hash of every setting of the config.
        torch, transformers: versions that the check ran with; another version may compute otherwise.
        attention: implementation that the check ran with; another one gets other masks.
        dtype: number format that the check ran in. It decides how far rounding went, not which tokens leave.
        layers: the K that were checked, ascending.
        deviations: per contract, the largest deviation relative to the spread of the logits.
        failed: the contract that failed and how; None when all hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    config_digest: str
    torch: str
    transformers: str
    attention: str = "unknown"
    dtype: str = "unknown"
    layers: tuple[int, ...] = ()
    deviations: dict[str, float]
    failed: str | None = None


def read_certificate(path: Path) -> Certificate:
    """Read a certificate that was stored as JSON; PolicyFileError when it is missing, truncated or something else."""
    try:
        return Certificate.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        remedy = f"{str(error).splitlines()[0]}; the check has to run again"
        raise PolicyFileError("a certificate must be readable", value=str(path), remedy=remedy) from error
