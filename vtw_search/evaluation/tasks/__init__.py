"""Tasks: where samples come from, one file and one line of the table per source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from vtw_search.errors import MissingExtraError, TaskError, near_matches, unknown_name
from vtw_search.evaluation.tasks import digits, easy_vqa
from vtw_search.evaluation.tasks.jsonl import read_jsonl
from vtw_search.evaluation.tasks.sample import FileImage, ImageSource, Sample
from vtw_search.evaluation.tasks.slices import DERIVED, DOWNSAMPLING_FAILS
from vtw_search.files import with_home

# Pool name -> samples. Either `search` and `holdout`, or the four splits, or `all`; see splits.py.
Pools = Mapping[str, list[Sample]]


def _easy_vqa(kind: str) -> Pools:
    return {pool: list(easy_vqa.load_pool(kind, pool)) for pool in ("search", "holdout")}


def _digits_read() -> Pools:
    return {pool: list(digits.load_pool(pool)) for pool in digits.POOL_GLYPHS}


def _jsonl(path: str | Path, near_duplicates: int | None = None) -> Pools:
    if not isinstance(path, str | Path):
        raise TaskError("option path must be a text", value=path, remedy="quote it: '\"...\"'")
    return {"all": read_jsonl(Path(with_home(str(path))), near_duplicates)}


SOURCES: dict[str, Callable[..., Pools]] = {"digits_read": _digits_read, "easy_vqa": _easy_vqa, "jsonl": _jsonl}


def load_pools(source: str, options: Mapping[str, Any]) -> Pools:
    """Load the samples of a task source.

    Raises:
        UnknownNameError: there is no such source.
        MissingExtraError: the package that carries the data is not installed.
        TaskError: the data is broken, a sample has no image, or a slice has a name that means something else.
    """
    if source not in SOURCES:
        raise unknown_name("task source", source, SOURCES)
    for name in options.keys() - (known := signature(SOURCES[source]).parameters).keys():
        raise TaskError(f"unknown option {name!r} of task source {source!r}", remedy=near_matches(str(name), known))
    try:
        pools = SOURCES[source](**options)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"task source {source!r} needs {error.name}", remedy="pip install 'vtw-search[search]'"
        ) from error
    without = [sample.id for pool in pools.values() for sample in pool if not sample.images]
    if without:
        remedy = f"{len(without)} sample(s) have no visual token to withdraw and would dilute the numbers; remove them"
        raise TaskError("every sample of a task must have an image", value=without[0], remedy=remedy)
    _check_slices([sample for pool in pools.values() for sample in pool])
    return pools


def _check_slices(samples: Sequence[Sample]) -> None:
    """Refuse a slice that would mean one thing for some samples and another for the rest."""
    taken = [sample.id for sample in samples if DOWNSAMPLING_FAILS in sample.slices]
    if taken:
        rule = f"the slice {DOWNSAMPLING_FAILS} is measured, so that no sample may bring it"
        raise TaskError(rule, value=f"sample {taken[0]}", remedy="give it another name")
    for name in DERIVED:
        without = [sample.id for sample in samples if name not in sample.slices]
        if without and len(without) < len(samples):
            rule = f"the slice {name} is derived from the content unless all samples bring it, not only some"
            remedy = f"give it to these {len(without)} samples too, or another name to all"
            raise TaskError(rule, value=f"sample {without[0]}", remedy=remedy)


__all__ = ["DERIVED", "DOWNSAMPLING_FAILS", "SOURCES", "FileImage", "ImageSource", "Pools", "Sample", "load_pools"]
