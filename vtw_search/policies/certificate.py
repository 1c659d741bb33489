"""The record that the conformance check has run on a model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Certificate(BaseModel):
    """What the conformance check found on one model.

    Attributes:
        model_type: of the config.
        config_digest: hash of every setting of the config.
        torch, transformers: versions that the check ran with; another version may compute otherwise.
        deviations: per contract, the largest deviation relative to the spread of the logits.
        failed: the contract that failed and how; None when all hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    config_digest: str
    torch: str
    transformers: str
    deviations: dict[str, float]
    failed: str | None = None
