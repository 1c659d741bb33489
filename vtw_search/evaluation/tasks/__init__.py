"""Tasks: where samples come from, one file and one line of the table per source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vtw_search.errors import MissingExtraError, TaskError, unknown_name
from vtw_search.evaluation.tasks import digits, easy_vqa
from vtw_search.evaluation.tasks.jsonl import read_jsonl
from vtw_search.evaluation.tasks.sample import FileImage, ImageSource, Sample

# Pool name -> samples. Either `search` and `holdout`, or the four splits, or `all`; see splits.py.
Pools = Mapping[str, list[Sample]]


def _easy_vqa(kind: str) -> Pools:
    return {pool: list(easy_vqa.load_pool(kind, pool)) for pool in ("search", "holdout")}


def _digits_read() -> Pools:
    return {pool: list(digits.load_pool(pool)) for pool in digits.POOL_GLYPHS}


def _jsonl(path: str) -> Pools:
    return {"all": list(read_jsonl(Path(path)))}


SOURCES: dict[str, Callable[..., Pools]] = {"digits_read": _digits_read, "easy_vqa": _easy_vqa, "jsonl": _jsonl}


def load_pools(source: str, options: Mapping[str, Any]) -> Pools:
    """Load the samples of a task source.

    Raises:
        UnknownNameError: there is no such source.
        MissingExtraError: the package that carries the data is not installed.
        TaskError: the data is broken, or no sample has an image.
    """
    if source not in SOURCES:
        raise unknown_name("task source", source, SOURCES)
    try:
        pools = SOURCES[source](**options)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"task source {source!r} needs {error.name}", remedy="pip install 'vtw-search[search]'"
        ) from error
    if not any(sample.images for pool in pools.values() for sample in pool):
        remedy = "there is no visual token to withdraw; add images"
        raise TaskError(
            "a task must have images", value=f"{sum(map(len, pools.values()))} text-only samples", remedy=remedy
        )
    return pools


__all__ = ["SOURCES", "FileImage", "ImageSource", "Pools", "Sample", "load_pools"]
