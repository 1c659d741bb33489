"""The record that the conformance check has run on a model."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import Field, ValidationError

from vtw_search.errors import PolicyFileError
from vtw_search.frozen import FrozenMap, FrozenModel
from vtw_search.policies.json_file import first_problem, read_json

_REMEDY = "the check has to run again"


class Certificate(FrozenModel):
    """What the conformance check found on one model.

    Attributes:
        model_type: of the config.
        config_digest: hash of every setting of the config.
        torch, transformers: versions that the check ran with; another version may compute otherwise.
        attention: implementation that the check ran with; another one gets other masks.
        dtype: number format that the check ran in. It decides how far rounding went, not which tokens leave.
        layers: the K that were checked, ascending.
        deviations: per contract, the largest deviation relative to the spread of the logits, where it is finite.
        failed: the contract that failed and how; None when all hold.
    """

    model_type: str
    config_digest: str
    torch: str
    transformers: str
    attention: str = "unknown"
    dtype: str = "unknown"
    layers: tuple[int, ...] = ()
    deviations: FrozenMap[str, Annotated[float, Field(allow_inf_nan=False)]]
    failed: str | None = None


def read_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Read a certificate that was stored as JSON; PolicyFileError when it is missing, truncated or something else."""
    try:
        return Certificate.model_validate(read_json(path, "certificate", _REMEDY))
    except ValidationError as error:
        remedy = f"{first_problem(error)}; {_REMEDY}"
        raise PolicyFileError("a certificate must be readable", value=str(path), remedy=remedy) from error
