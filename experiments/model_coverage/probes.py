"""The probes of a tiny family: every kind of image alone, a ragged left-padded batch of three, and text alone."""

from __future__ import annotations

from experiments.model_coverage.tiny import TinyFamily
from vtw_search.conformance import Probe, text_row


def ragged_rows(family: TinyFamily) -> list[tuple[str, ...]]:
    """Return three rows: several images, another kind of image, and no image where the family can do without."""
    rows: list[tuple[str, ...]] = [("small",) * family.max_images, (family.kinds[-1],)]
    return [*rows, () if family.text_only else ("small",)]


def family_probes(family: TinyFamily) -> list[Probe]:
    """Return the probes of `family`."""
    probes = [Probe(f"one {kind}", family.inputs([(kind,)])) for kind in family.kinds]
    batch = family.inputs(ragged_rows(family))
    if not family.text_only:
        return [*probes, Probe("ragged batch", batch)]
    return [*probes, Probe("ragged batch", batch, ((2, text_row(batch, 2)),)), Probe("text only", family.inputs([()]))]
