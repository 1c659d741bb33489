"""The user's own task: one JSON object per line.

    {"id": "1", "images": ["img/1.png"], "prompt": "what is this?", "answers": ["cat"], "metric": "exact_match",
     "cluster": "img-1", "slices": {"kind": "photo"}}

`cluster` (default: the images) and `slices` are optional; `metric` defaults to exact_match. Image paths are relative to
the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vtw_search.errors import TaskError, UnknownNameError
from vtw_search.evaluation.metrics import find_metric
from vtw_search.evaluation.tasks.sample import FileImage, Sample


class JsonlRow(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str | int
    images: list[str]
    prompt: str = Field(min_length=1)
    answers: list[str] = Field(min_length=1)
    metric: str = "exact_match"
    cluster: str | None = None
    slices: dict[str, str] = {}


def read_jsonl(path: Path) -> Iterator[Sample]:
    """Yield the samples of a file.

    Raises:
        TaskError: the file cannot be read, or a line is broken; line number and field are named.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        row = _parse(line, f"{path}, line {number}")
        if str(row.id) in seen:
            first = seen[str(row.id)]
            raise TaskError(f"{path}, line {number}, field id: must be unique, line {first} has it too", value=row.id)
        seen[str(row.id)] = number
        yield _sample(row, path.parent)
    if not seen:
        raise TaskError("a task file must hold at least one sample", value=str(path))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"{error}; set task.path to a JSONL file in UTF-8"
        raise TaskError("a task file must be readable", value=str(path), remedy=remedy) from error


def _parse(line: str, place: str) -> JsonlRow:
    try:
        row = JsonlRow.model_validate(json.loads(line))
        find_metric(row.metric)
    except json.JSONDecodeError as error:
        raise TaskError(f"{place}: must be one JSON object ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole line"
        raise TaskError(f"{place}, field {field}: {first['msg']}") from error
    except UnknownNameError as error:
        raise TaskError(f"{place}, field metric: {error}") from error
    return row


def _sample(row: JsonlRow, folder: Path) -> Sample:
    return Sample(
        id=str(row.id),
        images=tuple(FileImage(folder / name) for name in row.images),
        prompt=row.prompt,
        answers=tuple(row.answers),
        metric=row.metric,
        cluster=row.cluster or "+".join(row.images) or str(row.id),
        slices=row.slices,
    )
